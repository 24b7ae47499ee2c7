"""LLaVA-Bench (in the wild): parsing of verdicts, scores by hand, and its three files in the format
of the official script.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.errors import UserError
from perceptune.core.benchmarks.llava_bench.metrics import RULE, scores
from perceptune.core.data.read_files import Files
from perceptune.core.data.row_checks import RowError

from tests.plugins import BENCHMARKS, IMPORTERS

from .answering import Row, answered, failures, questions, shuffled, values

CATEGORY = ["conv", "detail", "complex", "conv"]


def written(folder: Path, **changes: list[Any]) -> Path:
    """Four questions about two images."""
    files: dict[str, list[Any]] = {
        "questions": [
            {"question_id": i, "image": f"00{1 + i // 2}.jpg", "text": f"Question {i}?", "category": CATEGORY[i]}
            for i in range(4)
        ],
        "answers_gpt4": [{"question_id": i, "text": f"Reference {i}.", "answer_id": f"a{i}"} for i in (3, 2, 1, 0)],
        "context": [
            {"id": "001", "image": "001.jpg", "caption": "A lake."},
            {"id": "002", "image": "002.jpg", "caption": ["A hill.", "It is green."]},
        ],
    } | changes
    for name, records in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return questions("llava_bench", written(tmp_path))


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("8 7\nThe first is better.", (8, 7)),
        ("8.5 10", (8.5, 10)),
        ("\n9, 6\nWhy.", (9, 6)),
        ("Assistant 1: 8 Assistant 2: 7", None),
        ("8", None),
        ("8 7 6", None),
        ("80 70", None),
        ("-1 -1", None),
        ("nan 3", None),
        ("", None),
        (None, None),
    ],
)
def test_the_first_line_has_both_scores(verdict: str | None, expected: tuple[float, float] | None) -> None:
    assert scores(verdict) == expected


def test_questions_meet_their_reference_and_the_text_about_their_image(rows: list[Row]) -> None:
    assert [row["answer"] for row in rows] == [f"Reference {i}." for i in range(4)]
    assert [row["caption"] for row in rows] == ["A lake."] * 2 + ["A hill.\nIt is green."] * 2
    assert [row["image"] for row in rows] == ["001.jpg", "001.jpg", "002.jpg", "002.jpg"]


def test_a_question_without_a_reference_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path, answers_gpt4=[{"question_id": 0, "text": "A."}])
    found = dict(IMPORTERS["llava_bench"].rows(Files(folder)))
    assert isinstance(found["questions.jsonl line 1"], dict)
    assert isinstance(found["questions.jsonl line 2"], RowError)
    assert "question 1 about '001.jpg' has no record in `answers_gpt4.jsonl`" in str(found["questions.jsonl line 2"])


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"context.jsonl`, line 1: .*expected a record with `image`"):
        list(IMPORTERS["llava_bench"].rows(Files(written(tmp_path, context=[{"id": "001"}]))))


def test_scores_are_sums_over_sums(rows: list[Row]) -> None:
    verdicts = ["8 4\nx", "10 5", "6 9", "8 8"]
    found = values("llava_bench", answered("llava_bench", rows, ["An answer."] * 4, verdicts=verdicts))
    assert found == pytest.approx({
        "llava_bench": (4 + 5 + 9 + 8) / (8 + 10 + 6 + 8),
        "llava_bench_conv": (4 + 8) / (8 + 8),
        "llava_bench_detail": 5 / 10,
        "llava_bench_complex": 9 / 6,
    })  # fmt: skip


def test_what_cannot_be_read_is_left_out_and_counted(rows: list[Row]) -> None:
    answers = answered("llava_bench", rows, ["An answer."] * 4, verdicts=["8 4", "Both are good.", "6 9", "8 8"])
    found = values("llava_bench", answers)
    assert found["llava_bench"] == pytest.approx((4 + 9 + 8) / (8 + 6 + 8))
    assert math.isnan(found["llava_bench_detail"])
    assert failures("llava_bench", answers, "llava_bench") == (4, 1)
    assert failures("llava_bench", answers, "llava_bench_detail") == (1, 1)
    assert failures("llava_bench", answers, "llava_bench_conv") == (2, 0)


def test_a_judge_that_says_nothing_readable_gives_no_score(rows: list[Row]) -> None:
    """In the official script, such a verdict counts as -1 for both, and the result is 100."""
    found = values("llava_bench", answered("llava_bench", rows, ["An answer."] * 4, verdicts=["Good."] * 4))
    assert all(math.isnan(value) for value in found.values())


def test_the_order_of_questions_says_nothing(rows: list[Row]) -> None:
    answers = answered("llava_bench", rows, ["An answer."] * 4, verdicts=["8 4", "10 5", "6 9", "8 8"])
    assert values("llava_bench", shuffled(answers, 2)) == pytest.approx(values("llava_bench", answers))


def test_the_prompt_has_the_official_form(rows: list[Row]) -> None:
    (answer,) = answered("llava_bench", rows[3:4], ["Ours."])
    judged = BENCHMARKS["llava_bench"].judged
    assert judged
    system, user = judged.messages(answer)
    assert system["role"] == "system"
    assert user["content"] == (
        "[Context]\nA hill.\nIt is green.\n\n[Question]\nQuestion 3?\n\n"
        "[Assistant 1]\nReference 3.\n\n[End of Assistant 1]\n\n[Assistant 2]\nOurs.\n\n[End of Assistant 2]\n\n"
        f"[System]\n{RULE}\n\n"
    )
