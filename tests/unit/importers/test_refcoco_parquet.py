"""RefCOCO as Parquet, in both forms on the Hugging Face hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.unit.importers.conftest import Imported, draw, drawn, write_parquet


def lmms(**changes: Any) -> dict[str, Any]:
    made = {
        "question_id": "10",
        "image": drawn(),
        "question": "Please carefully observe the area circled in the image and come up with a caption for the area.",
        "answer": ["the left cup", "cup"],
        "segmentation": [1.0, 2.0],
        "bbox": [1.5, 2.0, 30.25, 20.0],
        "iscrowd": 0,
        "file_name": "COCO_train2014_000000000001_10.jpg",
    }
    return {**made, **changes}


def jxu(**changes: Any) -> dict[str, Any]:
    made = {
        "ref_id": 5,
        "ann_id": 10,
        "image_id": 1,
        "split": "testA",
        "sentences": [{"raw": "Cup", "sent": "cup", "sent_id": 8, "tokens": ["cup"]}],
        "raw_anns": json.dumps({"bbox": [1.5, 2.0, 30.25, 20.0]}),
        "raw_image_info": json.dumps({"file_name": "COCO_train2014_000000000001.jpg", "width": 64, "height": 48}),
        "image_path": "coco/train2014/COCO_train2014_000000000001.jpg",
        "bbox": [1.5, 2.0, 31.75, 22.0],
        "captions": ["cup"],
    }
    return {**made, **changes}


def test_lmms_lab(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "RefCOCO" / "data"
    # the same annotation occurs in `val` twice: UNC's and Google's
    write_parquet(folder / "val-00000-of-00001.parquet", [lmms(), lmms(answer=["a cup"])], image=datasets.Image())
    write_parquet(folder / "testB-00000-of-00001.parquet", [lmms(question_id="30")], image=datasets.Image())
    rows = imported("refcoco_parquet", folder)
    assert [row["example_id"] for row in rows] == ["testB-30.0", "testB-30.1", "val-10.0", "val-10.1", "val-10-2.0"]
    assert [row["question"] for row in rows] == ["the left cup", "cup", "the left cup", "cup", "a cup"]
    assert {tuple(row["box"]) for row in rows} == {(1.5, 2.0, 31.75, 22.0)}
    assert [row["split"] for row in rows] == ["testB", "testB", "val", "val", "val"]
    assert rows[0]["image_sizes"] == [[64, 48]]
    printed = capsys.readouterr().out
    assert "data testB: 2 rows, 5095 published" in printed
    assert "data val: 3 rows, 10834 published" in printed


def test_jxu124(tmp_path: Path, imported: Imported) -> None:
    draw(tmp_path / "train2014" / "COCO_train2014_000000000001.jpg")
    file = write_parquet(tmp_path / "test.parquet", [jxu(), jxu(ref_id=6, raw_anns=None, raw_image_info=None)])
    rows = imported("refcoco_parquet", file, images=tmp_path / "train2014")
    assert [(row["example_id"], row["question"], row["split"]) for row in rows] == [("5-8", "cup", "testA"), ("6-8", "cup", "testA")]  # fmt: skip
    assert [row["box"] for row in rows] == [[1.5, 2, 31.75, 22]] * 2


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    draw(tmp_path / "train2014" / "COCO_train2014_000000000001.jpg")
    bad = [
        jxu(bbox=[1.5, 2.0, 30.25, 20.0]),  # corner and size instead of two corners
        jxu(raw_image_info=json.dumps({"width": 640, "height": 480})),
        jxu(raw_anns="{"),
        jxu(bbox=[1.0, 2.0]),
        jxu(image_path=None),
        jxu(sentences=[]),
        jxu(raw_anns=json.dumps({"bbox": [10**400, 2, 3, 4]})),
    ]
    file = write_parquet(tmp_path / "test.parquet", bad)
    message = mistakes("refcoco_parquet", file, images=tmp_path / "train2014")
    assert (
        "row 1, expression 1: `bbox` is [1.5, 2.0, 30.25, 20.0], expected the box [1.5, 2.0, 31.75, 22.0] of `raw_anns`"
        in message
    )
    assert "row 2, expression 1: the image has 64 x 48 pixels, the annotations expect 640 x 480" in message
    assert "row 3, expression 1: `raw_anns` is '{', expected an object as JSON text" in message
    assert "row 4, expression 1: `bbox` is [1.0, 2.0], expected four finite numbers" in message
    assert "row 5, expression 1: key `image_path` is missing" in message
    assert "and 2 more" in message
    message = mistakes(
        "refcoco_parquet", write_parquet(tmp_path / "test.parquet", bad[5:]), images=tmp_path / "train2014"
    )
    assert "row 1, expression 1: `sentences` is [], expected a list of objects with `sent`" in message
    assert "row 2, expression 1: `bbox` is [1000" in message
    message = mistakes("refcoco_parquet", write_parquet(tmp_path / "test.parquet", [jxu(image_path=3)]))
    assert "row 1, expression 1: `image_path` is 3, expected text" in message
    file = write_parquet(tmp_path / "val.parquet", [lmms(answer=[])], image=datasets.Image())
    assert "`answer` is [], expected a list of expressions" in mistakes("refcoco_parquet", file)
