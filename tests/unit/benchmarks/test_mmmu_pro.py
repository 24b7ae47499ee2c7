"""MMMU-Pro, vision: the official rule for the letter, without its random answers."""

import ast
import json
import math
from pathlib import Path

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.answers.extraction import lettered
from perceptune.core.benchmarks.mmmu_pro.answers import option_of
from perceptune.planning.protocols import with_protocols

from tests.official_data import official
from tests.unit.benchmarks.answering import Row, answered, failures, questions, shuffled, through_the_stages, values
from tests.unit.benchmarks.tables import embedded, in_base64, write_parquet, write_tsv

OPTIONS = ["a cat", "a dog", "an old house", "$5", "none"]
RECORDS = [{"id": f"test_Art_{i}", "answer": "C", "options": str(OPTIONS), "subject": "Art"} for i in range(2)]


def parquet(folder: Path) -> Path:
    return write_parquet(
        folder / "test-00000-of-00001.parquet", [{**r, "image": embedded(i)} for i, r in enumerate(RECORDS)]
    )


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("First, A and B are out.\nAnswer: C", "C"), ("Answer: $C$", "C"), ("Answer: B\nno, Answer: D", "D"),
        ("Answer: C. an old house", "C"), ("Answer: A or B, so (D)", "D"), ("(A) is wrong, it is (C)", "C"),
        ("It must be C", "C"), ("A is wrong and so C is right", "C"), ("C.", "C"), ("\\boxed{E}", "E"),
        ("\\boxed{42}.\n\nAnswer: C", "C"), ("We get \\boxed{A + B}.\n**Answer:** C", "C"), ("<think>Answer: A</think> \\boxed{C}", "C"),
        ("\\boxed{C}\nAnswer: the third one", "C"), ("Answer: $\\boxed{C}$", "C"), ("\\boxed{Answer: C}", "C"), ("\\boxed{(C)}", "C"),
        ("Answer: \\( \\boxed{\\text{E}} \\)", "E"), ("\\boxed{\\mathrm{B}}", "B"), ("\\boxed{\\textbf{(B)} a dog}", "B"),
        ("I believe that it shows an old house", "C"), ("an old house", None), ("no idea", None), ("", None),
    ],
)  # fmt: skip
def test_options(text: str, letter: str | None) -> None:
    assert option_of(text, lettered(OPTIONS)) == letter


def rows(folder: Path) -> list[Row]:
    return questions("mmmu_pro", parquet(folder))


def test_invariants(tmp_path: Path) -> None:
    answers = answered("mmmu_pro", rows(tmp_path), ["Answer: C", "who knows"])
    assert values("mmmu_pro", answers) == {"accuracy": 0.5}
    assert failures("mmmu_pro", answers, "accuracy") == (2, 1)
    assert values("mmmu_pro", shuffled(answers, 1)) == {"accuracy": 0.5}
    assert values("mmmu_pro", answered("mmmu_pro", rows(tmp_path), ["C", "(C)"])) == {"accuracy": 1}
    assert math.isnan(values("mmmu_pro", [])["accuracy"])


def test_both_forms_give_the_same_rows(tmp_path: Path) -> None:
    named = dict(zip("ABCDE", OPTIONS, strict=True))
    tsv = [
        {"index": r["id"], "image": in_base64(i), "answer": "C", "category": "Art", **named}
        for i, r in enumerate(RECORDS)
    ]
    second = questions("mmmu_pro", write_tsv(tmp_path / "MMMU_Pro_V.tsv", tsv))
    assert [{**r, "image": None} for r in rows(tmp_path)] == [{**r, "image": None} for r in second]
    assert second[0]["choices"] == OPTIONS


def test_through_all_stages_with_the_official_prompt(tmp_path: Path) -> None:
    block = with_protocols({"benchmarks": {"b": {"dataset": "d", "protocol": "mmmu_pro"}}})["benchmarks"]["b"]
    assert "'Answer: $LETTER' (without quotes)" in block["prompt"] and "{question}" not in block["prompt"]
    data = FileDataset(kind="mmmu_pro", path=str(parquet(tmp_path)))
    table = through_the_stages(tmp_path, "mmmu_pro", data, {"test_Art_0": "Answer: C", "test_Art_1": None})
    assert table.select("value", "n", "n_failed").row(0) == (0.5, 2, 1)


def test_published_responses_give_the_official_number() -> None:
    """GPT-4o, vision, chain of thought: 866 of 1,730 by the authors' script, random guesses counted
    as wrong.
    """
    file = official("mmmu_pro") / "output_gpt-4o_vision_cot.jsonl"
    given = [json.loads(line) for line in file.read_text().splitlines()]
    options = [[str(option) for option in ast.literal_eval(row["options"])] for row in given]
    found = [option_of(row["response"], lettered(listed)) for row, listed in zip(given, options, strict=True)]
    assert len(found) == 1730
    assert sum(letter == row["answer"] for letter, row in zip(found, given, strict=True)) == 866
