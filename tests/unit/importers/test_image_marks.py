"""`<image>` in questions: removed around the text, refused inside it and in another number, in every format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.importers.conftest import Imported, draw, write_json

PAIR = {"chosen": "a cup", "rejected": "a dog"}


def record(kind: str, question: str, images: int) -> dict[str, Any]:
    """A record of this format that asks this question."""
    names = [f"{n}.png" for n in range(images)]
    if kind == "jsonl":
        return {"images": names, "question": question, "task": "open", "answer": "a cup"}
    assert images == 1
    image = {"image": names[0]}
    return {
        "rlhf_v": {**image, "question": question, **PAIR},
        "perpo": {"image_id": 1, "image_path": names[0], "question": question, "answer": "a cup", "answers_gen": [], "iou_scores": []},
        "easyr1": {**image, "problem": question, "answer": "a cup"},
        "mathvista": {**image, "pid": "1", "query": question, "question": "?", "answer_type": "text", "answer": "a cup"},
        "mathverse": {
            **image, "sample_index": "1", "query_wo": question, "answer": "a cup", "problem_index": "1", "problem_version": "Text Lite",
            "question_type": "free-form", "question_for_eval": "?",
        },
    }[kind]  # fmt: skip


KINDS = ["jsonl", "rlhf_v", "perpo", "easyr1", "mathvista", "mathverse"]


def write(folder: Path, kind: str, question: str, images: int = 1) -> Path:
    for number in range(2):
        draw(folder / f"{number}.png")
    return write_json(folder / "data.json", [record(kind, question, images)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "question", ["<image>\nis there a cup?", "is there a cup?\n<image>", "is there a cup? <image> "]
)
def test_a_mark_around_the_question_is_removed(tmp_path: Path, kind: str, question: str, imported: Imported) -> None:
    (row,) = imported(kind, write(tmp_path, kind, question))
    assert row["question"] == "is there a cup?"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("is there <image> a cup?", "an image inside the text, expected all images before the text"),
        ("<image><image>is there a cup?", "2 `<image>` placeholders for 1 images, expected 1 or none"),
        ("<image> is there a cup? <image>", "2 `<image>` placeholders for 1 images, expected 1 or none"),
    ],
)
def test_any_other_mark_is_refused_with_its_row(
    tmp_path: Path, kind: str, question: str, reason: str, mistakes: Callable[..., str]
) -> None:
    assert f"data.json, record 1: {reason}" in mistakes(kind, write(tmp_path, kind, question))


def test_several_images_have_as_many_marks(tmp_path: Path, imported: Imported, mistakes: Callable[..., str]) -> None:
    (row,) = imported("jsonl", write(tmp_path, "jsonl", "<image> <image>\nwhich is red?", images=2))
    assert row["question"] == "which is red?"
    message = mistakes("jsonl", write(tmp_path, "jsonl", "<image>which is red?", images=2))
    assert "1 `<image>` placeholders for 2 images, expected 2 or none" in message


def test_nothing_but_a_mark_is_no_question(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    assert "`question` is '<image>', expected text" in mistakes("jsonl", write(tmp_path, "jsonl", "<image>"))


def test_a_mark_in_the_text_to_read_stays(tmp_path: Path, imported: Imported) -> None:
    """It may be on the page; a model that uses it as a token leaves such rows out of training."""
    draw(tmp_path / "0.png")
    row = {"image": "0.png", "question": "read it.", "task": "ocr", "answer": "![a](<image>)"}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    assert imported("jsonl", tmp_path / "data.jsonl")[0]["target"] == "![a](<image>)"
