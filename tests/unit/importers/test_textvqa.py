"""TextVQA with and without boxes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.unit.importers.conftest import Imported, draw, drawn, write_json, write_parquet

ANSWERS = ["nokia"] * 4 + ["Nokia"] * 4 + ["nokia phone", "no"]


def question(number: int, **changes: Any) -> dict[str, Any]:
    made = {
        "question": "what brand is it?", "image_id": f"00{number}", "question_id": 34600 + number, "answers": ANSWERS,
        "image_width": 1024, "image_height": 664, "image_classes": ["Phone"], "set_name": "val", "flickr_300k_url": "",
    }  # fmt: skip
    return {**made, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        draw(tmp_path / "train_images" / f"00{number}.jpg")
    data = {"dataset_type": "val", "dataset_version": "0.5.1", "data": [question(1), question(2)]}
    write_json(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", data)
    return tmp_path / "textvqa"


def test_the_official_file(folder: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    rows = imported("textvqa", folder / "TextVQA_0.5.1_val.json", images=folder.parent / "train_images")
    assert [(row["example_id"], row["target"], row["split"], row["box"]) for row in rows] == [
        ("34601", "nokia", "val", None),
        ("34602", "nokia", "val", None),
    ]
    assert rows[0]["source"] == {"image_id": "001", "image_classes": ["Phone"], "answers": ANSWERS}
    assert "TextVQA_0.5.1_val.json val: 2 rows, 5000 published" in capsys.readouterr().out


def test_boxes_from_the_second_file(folder: Path, imported: Imported, mistakes: Callable[..., str]) -> None:
    images = folder.parent / "train_images"
    write_parquet(folder / "bbox.parquet", [{"dataset_id": "34602", "bbox": [10.0, 20.0, 30.0, 8.0]}])
    rows = imported("textvqa", folder, images=images)
    assert [row["box"] for row in rows] == [None, [10, 20, 40, 28]]
    write_parquet(folder / "bbox.parquet", [{"dataset_id": "1", "bbox": [10.0, 20.0, 30.0, 8.0]}])
    assert "no box in" in mistakes("textvqa", folder, images=images)
    write_parquet(folder / "bbox.parquet", [{"dataset_id": "1"}])
    assert "bbox.parquet`, row 1: key `bbox` is missing" in mistakes("textvqa", folder, images=images)


def test_the_data_set_of_boxes_itself(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"image": drawn(), "question": "what brand?", "answer": ANSWERS, "dataset_id": "34602", "bbox": [10.0, 20.0, 30.0, 8.0]}  # fmt: skip
    file = write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [record], image=datasets.Image())
    (row,) = imported("textvqa", file.parent, split="val")
    assert (row["example_id"], row["box"], row["target"], row["split"]) == ("34602", [10, 20, 40, 28], "nokia", "val")
    assert row["source"] == {"answers": ANSWERS}
    assert "data all: 1 rows, 4370 published" in capsys.readouterr().out


def test_the_split_of_a_question_is_its_own(tmp_path: Path, imported: Imported) -> None:
    record = {"image": drawn(), "image_id": "001", "question": "what brand?", "question_id": 1, "answers": ANSWERS, "set_name": "val"}  # fmt: skip
    file = write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [record], image=datasets.Image())
    assert [row["split"] for row in imported("textvqa", file.parent)] == ["val"]


def test_a_question_has_one_box(folder: Path, imported: Imported, mistakes: Callable[..., str]) -> None:
    images, box = folder.parent / "train_images", {"question_id": 34601, "bbox": [10, 20, 30, 8]}
    write_json(
        folder / "val_bbox.json", [box, {**box, "question_id": 34602}, box]
    )  # a repeated identical box is not a second one
    assert [row["box"] for row in imported("textvqa", folder, images=images)] == [[10, 20, 40, 28]] * 2
    write_json(folder / "val_bbox.json", [box, {**box, "bbox": [1, 2, 3, 4]}])
    message = mistakes("textvqa", folder, images=images)
    assert (
        "`val_bbox.json`, record 2: question 34601 has the box [1, 2, 3, 4] and an earlier box [10, 20, 30, 8]"
        in message
    )
    write_json(folder / "val_bbox.json", [{**box, "bbox": [10.5, 20, 10**400, 8]}])
    assert "question 1: `bbox` is [10.5, 20, 1000" in mistakes("textvqa", folder, images=images)


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_file_of_boxes_has_some(content: str, folder: Path, mistakes: Callable[..., str]) -> None:
    (folder / "val_bbox.json").write_text(content)
    assert "`val_bbox.json` has no boxes" in mistakes("textvqa", folder, images=folder.parent / "train_images")


def test_questions_without_answers(folder: Path, imported: Imported) -> None:
    unanswered = {key: value for key, value in question(1).items() if key != "answers"}
    write_json(folder / "TextVQA_0.5.1_val.json", {"data": [unanswered]})
    (row,) = imported("textvqa", folder, images=folder.parent / "train_images")
    assert row["target"] is None


def test_malformed_records_are_one_line_each(folder: Path, mistakes: Callable[..., str]) -> None:
    images = folder.parent / "train_images"
    bad = [question(1, answers="nokia"), {"question": "what?"}, 7]
    write_json(folder / "TextVQA_0.5.1_val.json", {"data": bad})
    message = mistakes("textvqa", folder, images=images)
    assert "question 1: `answers` is 'nokia', expected a list of texts" in message
    assert "question 2: key `question_id` is missing; found keys question" in message
    assert "question 3: found '7', expected an object" in message
    write_json(folder / "TextVQA_0.5.1_val.json", [question(1)])
    assert "`TextVQA_0.5.1_val.json` has no list `data`, expected TextVQA's own file" in mistakes(
        "textvqa", folder, images=images
    )
    write_json(folder / "TextVQA_0.5.1_train.json", {"data": []})
    assert "expected one" in mistakes("textvqa", folder, images=images)
