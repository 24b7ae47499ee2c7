"""RefCOCO's original files: one row per sentence, boxes as corners, images under COCO's names."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perceptune.core.importers.refer import SENTENCES, data_set_of

from tests.unit.importers.conftest import Imported, draw, write_json

Mistakes = Callable[..., str]
NAMES = {1: "COCO_train2014_000000000001.jpg", 2: "COCO_train2014_000000000002.jpg"}
REFS: list[dict[str, Any]] = [
    {"ref_id": 0, "ann_id": 10, "image_id": 1, "file_name": "COCO_train2014_000000000001_10.jpg", "split": "train",
     "category_id": 7, "sent_ids": [0, 1],
     "sentences": [{"sent_id": 0, "raw": "The LEFT cup.", "sent": "the left cup", "tokens": ["the", "left", "cup"]},
                   {"sent_id": 1, "raw": "cup", "sent": "cup", "tokens": ["cup"]}]},
    {"ref_id": 1, "ann_id": 20, "image_id": 2, "file_name": "COCO_train2014_000000000002_20.jpg", "split": "testA",
     "category_id": 7, "sent_ids": [2],
     "sentences": [{"sent_id": 2, "raw": "man", "sent": "man", "tokens": ["man"]}]},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unpacked folder, and a folder with the images."""
    place = tmp_path / "refcoco"
    write_json(
        place / "instances.json",
        {
            "images": [
                {"id": 1, "file_name": NAMES[1], "width": 64, "height": 48},
                {"id": 2, "file_name": NAMES[2], "width": 48, "height": 64},
            ],
            "annotations": [
                {"id": 10, "image_id": 1, "category_id": 7, "bbox": [1.5, 2.0, 30.25, 20.0], "segmentation": []},
                {"id": 20, "image_id": 2, "category_id": 7, "bbox": [0, 0, 48, 64], "segmentation": []},
            ],
            "categories": [{"id": 7, "name": "cup"}],
        },
    )
    (place / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    for name, size in zip(NAMES.values(), ((64, 48), (48, 64)), strict=True):
        draw(tmp_path / "train2014" / name, size)
    return place


def test_a_row_per_sentence(folder: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    rows = imported("refer", folder, images=folder.parent / "train2014")
    assert [row["example_id"] for row in rows] == ["0-0", "0-1", "1-2"]
    assert [row["question"] for row in rows] == ["the left cup", "cup", "man"]
    assert [row["box"] for row in rows] == [[1.5, 2, 31.75, 22], [1.5, 2, 31.75, 22], [0, 0, 48, 64]]
    assert [Path(row["images"][0]["path"]).name for row in rows] == [NAMES[1], NAMES[1], NAMES[2]]
    assert [row["split"] for row in rows] == ["train", "train", "testA"]
    assert {row["task"] for row in rows} == {"grounding"}
    assert rows[0]["source"] == {"ref_id": 0, "ann_id": 10, "category": "cup"}
    reason = capsys.readouterr().out
    assert "refcoco train: 2 rows, 120624 published" in reason
    assert "refcoco testA: 1 rows, 5657 published" in reason


def test_a_folder_with_two_divisions_wants_one_named(folder: Path, imported: Imported, mistakes: Mistakes) -> None:
    (folder / "refs(google).p").write_bytes(pickle.dumps(REFS[:1], protocol=2))
    images = {"images": folder.parent / "train2014"}
    message = mistakes("refer", folder, **images)
    assert "has `refs(google).p`, `refs(unc).p`, expected one" in message
    assert "hint: set `path` to the file" in message
    assert len(imported("refer", folder / "refs(google).p", **images)) == 2


def test_resized_images_are_noticed(folder: Path, mistakes: Mistakes) -> None:
    draw(folder.parent / "train2014" / NAMES[1], (32, 24))
    message = mistakes("refer", folder, images=folder.parent / "train2014")
    assert "2 of 3 rows cannot be used" in message
    assert (
        "object 1, sentence 1: the image has 32 x 24 pixels, the annotations expect 64 x 48: boxes are wrong on a resized image"
        in message
    )


def test_malformed_records_are_one_line_each(folder: Path, mistakes: Mistakes) -> None:
    bad = [
        {**REFS[0], "ann_id": 99},
        {**REFS[1], "sentences": []},
        {**REFS[1], "sentences": [{"sent_id": 3}]},
        {**REFS[0], "sentences": [{"sent_id": 0, "sent": ""}]},
    ]
    (folder / "refs(unc).p").write_bytes(pickle.dumps([*bad, REFS[1]]))
    message = mistakes("refer", folder, images=folder.parent / "train2014")
    assert "5 of 6 rows cannot be used" in message
    assert "object 1, sentence 1: annotation 99 is not in `instances.json`" in message
    assert "object 2: found {" in message
    assert "object 3, sentence 1: key `sent` is missing; found keys sent_id" in message
    assert "object 4, sentence 1: `question` is '', expected text" in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": 2}, "annotation 10 has image 2 in `instances.json`, expected 1: is it from another data set?"),
        ({"bbox": [10.5, 20, 10**400, 5]}, "`bbox` is [10.5, 20, 1000"),
        ({"bbox": [1, 2, float("nan"), 5]}, "`bbox` is [1, 2, nan, 5], expected four finite numbers"),
        ({"category_id": [7]}, "`category_id` of annotation 10 is [7], expected a number"),
    ],
)
def test_odd_annotations_are_reasons_of_their_rows(changes: dict[str, Any], reason: str, folder: Path, mistakes: Mistakes) -> None:  # fmt: skip
    instances = json.loads((folder / "instances.json").read_text())
    instances["annotations"][0] |= changes
    (folder / "instances.json").write_text(json.dumps(instances))
    message = mistakes("refer", folder, images=folder.parent / "train2014")
    assert "2 of 3 rows cannot be used" in message
    assert f"object 1, sentence 1: {reason}" in message


def test_files_that_are_no_refer_data(folder: Path, mistakes: Mistakes) -> None:
    (folder / "instances.json").write_text(json.dumps({"annotations": []}))
    assert "has no COCO annotations, expected lists `images` and `annotations`" in mistakes("refer", folder)
    (folder / "instances.json").unlink()
    assert "instances.json` does not exist" in mistakes("refer", folder)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(Path("x")))  # a class: unpickling it could run code
    assert "is not a pickle of plain values" in mistakes("refer", folder)
    (folder / "refs(unc).p").unlink()
    assert "has no `refs(...).p`" in mistakes("refer", folder)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/refcoco", "refcoco"),
        ("data/refcoco+/refs(unc).p", "refcoco+"),
        ("data/RefCOCOplus/data", "refcoco+"),
        ("data/RefCOCOg", "refcocog"),
        ("data/mine", None),
    ],
)
def test_data_sets_are_recognised_by_their_folders(path: str, name: str | None) -> None:
    assert data_set_of(Path(path)) == name


def test_published_numbers_add_up() -> None:
    """Without train: Ref-L4's table of RefCOCO, RefCOCO+ and RefCOCOg."""
    sums = {name: sum(n for split, n in counts.items() if split != "train") for name, counts in SENTENCES.items()}
    assert list(sums.values()) == [21586, 21373, 14498]
