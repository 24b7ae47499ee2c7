"""PerPO's own file: the published record, its coordinates, and what is imported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.core.answers import boxes
from perceptune.core.answers.boxes import parse_box

from tests.official_data import official
from tests.unit.importers.conftest import Imported, draw, write_json

NAME = "COCO/train2014/COCO_train2014_000000580344.jpg"


@pytest.fixture
def published() -> Path:
    """The one record that the authors published."""
    return official("perpo/data.json")


def record(**changes: Any) -> dict[str, Any]:
    made = {"image_id": 1, "image_path": "1.png", "question": "Where is the cup?", "answer": "[0.25, 0.5, 0.5, 1.0]",
            "answers_gen": ["[0.3, 0.5, 0.5, 1.0]", "[0.0, 0.0, 0.1, 0.1]"], "iou_scores": [0.8, 0.0]}  # fmt: skip
    return {**made, **changes}


def test_the_published_record(tmp_path: Path, imported: Imported, published: Path) -> None:
    draw(tmp_path / NAME, (640, 424))
    (row,) = imported("perpo", published, images=tmp_path)
    (given,) = json.loads(published.read_text())
    assert row["task"] == "grounding"
    assert row["target"] == given["answer"]
    assert row["box"] == pytest.approx([0.61 * 640, 0.1 * 424, 0.77 * 640, 0.54 * 424])
    answers = row["source"]["answers_given"]
    assert [answer["text"] for answer in answers] == given["answers_gen"]
    assert [answer["reward"] for answer in answers] == given["iou_scores"]


def test_its_frame_is_the_image(published: Path) -> None:
    """The rewards are IoUs with a box of whole pixels in a 640 x 424 image, as fractions of its
    sides.

    No answer extends above or below that box, so only its height matters: 186 of 424 pixels. In the
    padded square of side 640, the same fraction would be 280.7547 pixels, but COCO has two
    decimals.
    """
    (given,) = json.loads(published.read_text())
    answers = np.array([parse_box(text) for text in given["answers_gen"]])
    truth = np.array([[389 / 640, 43 / 424, 494 / 640, 229 / 424]])
    ious = boxes.iou(answers, np.repeat(truth, len(answers), axis=0))
    assert np.abs(ious - given["iou_scores"]).max() < 1e-12
    height = 186 / 424 * 640
    assert abs(height * 100 - round(height * 100)) > 0.1
    rounded = boxes.iou(answers, np.repeat([parse_box(given["answer"])], len(answers), axis=0))
    assert np.abs(rounded - given["iou_scores"]).max() == pytest.approx(
        0.0179, abs=1e-4
    )  # first answer: .8182 and .8003


def test_texts_to_read_and_repeated_images(tmp_path: Path, imported: Imported) -> None:
    draw(tmp_path / "1.png")
    page = record(answer="All of the page.", answers_gen=["b", "a"], iou_scores=[0.1, 0.9])
    rows = imported("perpo", write_json(tmp_path / "data.json", [record(), page]))
    assert [(row["example_id"], row["task"]) for row in rows] == [("1", "grounding"), ("1-2", "ocr")]
    assert rows[0]["box"] == [16, 24, 32, 48]
    assert rows[1]["box"] is None
    assert rows[1]["source"]["answers_given"] == [
        {"text": "a", "reward": 0.9},
        {"text": "b", "reward": 0.1},
    ]  # best first


@pytest.mark.parametrize(
    "text", ["The map (0, 0, 1, 1) is a projection.", "As shown in [1, 2, 3, 4].", "(.1,.2),(.3,.4) or (.5,.6)"]
)
def test_a_page_with_numbers_in_brackets_is_a_page(text: str, tmp_path: Path, imported: Imported) -> None:
    draw(tmp_path / "1.png")
    (row,) = imported("perpo", write_json(tmp_path / "data.json", [record(answer=text)]))
    assert (row["task"], row["target"], row["box"]) == ("ocr", text, None)


@pytest.mark.parametrize("text", [" [0.25, 0.5, 0.5, 1.0]\n", "(0.25,0.5),(0.5,1.0)"])
def test_a_box_and_blanks_are_a_box(text: str, tmp_path: Path, imported: Imported) -> None:
    draw(tmp_path / "1.png")
    (row,) = imported("perpo", write_json(tmp_path / "data.json", [record(answer=text)]))
    assert (row["task"], row["box"]) == ("grounding", [16, 24, 32, 48])


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    draw(tmp_path / "1.png")
    bad = [
        record(iou_scores=[0.8]),
        record(answers_gen="x"),
        record(answers_gen=["x", 3]),
        record(answer="[16, 24, 32, 48]"),
        record(question=None),
    ]
    message = mistakes("perpo", write_json(tmp_path / "data.json", bad))
    assert "5 of 5 rows cannot be used" in message
    assert "record 1: 2 answers with 1 rewards, expected one reward per answer" in message
    assert "record 2: `answers_gen` is 'x' and `iou_scores` [0.8, 0.0], expected lists" in message
    assert "record 3: an answer is 3, expected text" in message
    assert "record 4: `box` [16.0, 24.0, 32.0, 48.0] exceeds 1, expected normalised coordinates" in message
    assert "record 5: key `question` is missing" in message


def test_answers_are_ranked_by_finite_numbers_only(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    draw(tmp_path / "1.png")
    bad = [
        record(iou_scores=[0.1, float("nan")]),
        record(iou_scores=[float("inf"), 0.1]),
        record(iou_scores=[True, 0.1]),
    ]
    message = mistakes("perpo", write_json(tmp_path / "data.json", bad))
    for number, score in enumerate(("nan", "inf", "True"), 1):
        assert f"record {number}: a reward is {score}, expected a finite number" in message
