"""Images and questions that two splits share."""

import json
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.data.leakage import Overlap, overlap, overlaps_of_splits
from perceptune.stages.data import import_examples
from PIL import Image


def row(question: str, *images: str, split: str = "train") -> dict[str, Any]:
    return {"question": question, "image_sha256": list(images), "split": split}


@pytest.mark.parametrize(
    ("training", "benchmark", "expected"),
    [
        ([row("a?", "1")], [row("a?", "2")], (0, 1, 0, 1)),  # the same text about another image
        ([row("a?", "1")], [row("b?", "1")], (1, 1, 0, 1)),
        ([row("a?", "1")], [row("a?", "1")], (1, 1, 1, 1)),
        ([row("Is it  A?\n", "1")], [row("is it a?", "1")], (1, 1, 1, 1)),
        ([row("a?", "1"), row("b?", "1")], [row("a?", "1")] * 3 + [row("c?", "2")], (1, 2, 1, 2)),  # counted once
        ([row("a?", "1", "2")], [row("a?", "2", "1")], (2, 2, 0, 1)),  # in another order: another question
        ([row("a?", "1", "2")], [row("a?", "2", "3")], (1, 2, 0, 1)),
        ([row("a?")], [row("a?"), row("b?")], (0, 0, 1, 2)),  # questions without an image
        ([], [row("a?", "1")], (0, 1, 0, 1)),
        ([row("a?", "1")], [], (0, 0, 0, 0)),
    ],
)
def test_overlap(training: list[Any], benchmark: list[Any], expected: tuple[int, ...]) -> None:
    assert overlap(training, benchmark) == Overlap(*expected)
    assert overlap(iter(training), iter(benchmark)) == Overlap(*expected)


def test_the_counts_agree_with_a_plain_count() -> None:
    """Every third image and every sixth question of the benchmark is also in training."""
    training = [row(f"q{n % 2}?", str(n)) for n in range(0, 300, 3)]
    benchmark = [row("q0?", str(n)) for n in range(300)]
    images = sum(any(n == m for m in range(0, 300, 3)) for n in range(300))
    questions = sum(
        one["image_sha256"] == other["image_sha256"] and one["question"] == other["question"]
        for one in training
        for other in benchmark
    )
    assert overlap(training, benchmark) == Overlap(images, 300, questions, 300)
    assert (images, questions) == (100, 50)


def test_all_pairs_of_splits_are_compared_with_training_first() -> None:
    rows = [
        row("a?", "1", split="test"),
        row("a?", "1", split="train"),
        row("b?", "2", split="val"),
        row("c?", "2", split="test"),
    ]
    assert list(overlaps_of_splits(rows)) == [
        ("train", "test", Overlap(1, 2, 1, 2)),
        ("test", "val", Overlap(1, 1, 0, 1)),
    ]
    assert list(overlaps_of_splits([row("a?", "1"), row("b?", "1")])) == []
    assert list(overlaps_of_splits([])) == []


def test_the_import_warns_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    made = [
        ("0.png", "a?", "train"),
        ("1.png", "a?", "train"),
        ("copy.png", "a?", "test"),
        ("2.png", "a?", "test"),
        ("no.png", "a?", "test"),
    ]

    def run(rows: list[tuple[str, str, str]]) -> str:
        lines = [
            json.dumps({"image": image, "question": text, "split": split, "task": "open"})
            for image, text, split in rows
        ]
        (tmp_path / "data.jsonl").write_text("\n".join(lines))
        config = FileDataset(kind="jsonl", path=str(tmp_path / "data.jsonl"), max_failed_rows=1)
        import_examples.run(config=config, examples=tmp_path / "examples.parquet")
        return capsys.readouterr().out

    assert (
        "warning: 1 of 2 images and 1 of 2 questions of split `test` are also in split `train`:"
        " do not train on one and evaluate on the other" in run(made)
    )
    assert "also in split" not in run([made[0], made[1], made[3]])
