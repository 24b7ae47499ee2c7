"""MATH-Vision: letters, numbers within 1e-6, LaTeX, and accuracy by level."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.answers.extraction import chosen_option, lettered

from tests.official_data import official
from tests.unit.benchmarks.answering import Row, answered, failures, questions, shuffled, through_the_stages, values
from tests.unit.benchmarks.tables import embedded, in_base64, write_parquet, write_tsv

RECORDS: list[dict[str, Any]] = [
    {"id": "4", "question": "Which number?\n<image1>", "options": ["1", "2", "3", "4", "5"], "answer": "D", "level": 1},
    {"id": "5", "question": "<image1>How far?", "options": [], "answer": "\\frac{3}{4}", "level": 5},
    {"id": "6", "question": "How many?", "options": [], "answer": "12", "level": 5},
]


def parquet(folder: Path) -> Path:
    rows = [
        {**r, "image": f"images/{r['id']}.jpg", "decoded_image": embedded(i), "subject": "algebra"}
        for i, r in enumerate(RECORDS)
    ]
    return write_parquet(folder / "test-00000-of-00001.parquet", rows)


def rows(folder: Path) -> list[Row]:
    return questions("mathvision", parquet(folder))


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("0.75", "\\frac{3}{4}", True), ("The answer is 3/4.", "\\frac{3}{4}", True), ("\\boxed{\\frac{6}{8}}", "\\frac{3}{4}", True),
        ("2.0000005", "2", True), ("2.00001", "2", False), ("XY", "xy", True), ("\\boxed{x}\nand \\boxed{12}", "12", True),
        ("12 cm", "12", True), ("nothing", "12", False), ("", "12", False), ("9**9**9**9", "12", False),
    ],
)  # fmt: skip
def test_free_answers(tmp_path: Path, text: str, target: str, right: bool) -> None:
    row = {**rows(tmp_path)[1], "answer": target}
    assert (answered("mathvision", [row], [text])[0].components["accuracy"] == 1) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("D", True),
        ("\\boxed{D}", True),
        ("So it is (D)", True),
        ("4", True),
        ("A or D", False),
        ("(A) 1\n(B) 2\n(D) 4\n\nThe answer is (D).", True),
        ("A is wrong. So the answer is d", True),
        ("So we get \\boxed{4}.", True),
        ("A or B: \\boxed{\\text{D}}", True),
        ("(A) 1 is too small, and (D) 4?\n4", True),
        ("14", False),
        ("The answer is A or D", False),
    ],
)
def test_options(tmp_path: Path, text: str, right: bool) -> None:
    """`4` is the text of option D only."""
    assert (answered("mathvision", rows(tmp_path)[:1], [text])[0].components["accuracy"] == 1) is right


def test_by_level(tmp_path: Path) -> None:
    answers = answered("mathvision", rows(tmp_path), ["D", "1", None])
    found = values("mathvision", answers)
    assert (found["accuracy"], found["accuracy_level_1"], found["accuracy_level_5"]) == (1 / 3, 1, 0)
    assert math.isnan(found["accuracy_level_3"])
    assert failures("mathvision", answers, "accuracy_level_5") == (2, 1)
    assert values("mathvision", shuffled(answers, 1)) == pytest.approx(found, nan_ok=True)
    assert values("mathvision", answered("mathvision", rows(tmp_path), ["D", "3/4", "12"]))["accuracy"] == 1
    assert all(math.isnan(v) for v in values("mathvision", []).values())


def test_both_forms_give_the_same_rows(tmp_path: Path) -> None:
    hint = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\nQuestion: "
    listed = "\nChoices:\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5"
    first = rows(tmp_path)
    assert first[0]["question"] == f"{hint}Which number?{listed}"
    tsv = [
        {
            "index": r["id"], "image": in_base64(i), "question": f"{hint}Which number?{listed}" if i == 0 else r["question"],
            "choices": str(r["options"]), "answer": r["answer"], "category": "algebra", "level": r["level"],
        }
        for i, r in enumerate(RECORDS)
    ]  # fmt: skip
    second = questions("mathvision", write_tsv(tmp_path / "MathVision.tsv", tsv))
    keys = ("id", "question", "answer", "choices", "subject")
    assert [[row[k] for k in keys] for row in first] == [[row[k] for k in keys] for row in second]
    assert values("mathvision", answered("mathvision", second, ["D", "", ""]))["accuracy_level_1"] == 1


def test_through_all_stages(tmp_path: Path) -> None:
    data = FileDataset(kind="mathvision", path=str(parquet(tmp_path)))
    table = through_the_stages(tmp_path, "mathvision", data, {"4": "D", "5": "D", "6": "The answer is 12."})
    assert {r["metric"]: r["value"] for r in table.iter_rows(named=True)}["accuracy"] == pytest.approx(2 / 3)


def test_published_responses_with_choices() -> None:
    """Qwen-VL-Max: the authors' script finds 231 of 1,532 choices right; ours finds almost all of them
    and others, such as a value with its unit.
    """
    asked = {
        row["id"]: row for row in map(json.loads, (official("mathvision") / "test.jsonl").read_text().splitlines())
    }
    file = official("mathvision") / "output_qwen-vl-max-cot.jsonl"
    given = [row for row in map(json.loads, file.read_text().splitlines()) if asked[row["id"]]["options"]]
    theirs, ours = set(), set()
    for row in given:
        about = asked[row["id"]]
        if row["correct"]:
            theirs.add(row["id"])
        if chosen_option(row["response"], lettered(about["options"])) == about["answer"]:
            ours.add(row["id"])
    assert (len(given), len(theirs), len(ours), len(theirs - ours)) == (1532, 231, 288, 12)
