"""MathVerse: five versions of each problem; letters and equal values by rules, 0 or 1 from a judge."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.benchmarks.mathverse.answers import option_of
from perceptune.core.benchmarks.mathverse.data import VERSIONS
from perceptune.core.data.read_files import Files

from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import (
    IMPORTERS,
    Row,
    answered,
    failures,
    questions,
    shuffled,
    through_the_stages,
    values,
)
from tests.unit.benchmarks.tables import embedded, in_base64, write_parquet, write_tsv

CHOICES = "what is the angle?\nChoices:\nA:20°\nB:40°\nC:60°\nD:80°"
PROBLEMS = [
    {"question_type": "multi-choice", "question_for_eval": CHOICES, "answer": "B"},
    {"question_type": "free-form", "question_for_eval": "Find x.", "answer": "\\frac{1}{2}"},
]
HINT = "Please directly answer the question and provide the correct option letter, e.g., A, B, C, D.\nQuestion: "


def published() -> list[dict[str, Any]]:
    rows = []
    for problem, about in enumerate(PROBLEMS):
        for number, version in enumerate(VERSIONS):
            index = str(1 + problem * len(VERSIONS) + number)
            rows.append(
                {
                    "sample_index": index, "problem_index": str(problem + 1), "problem_version": version, "image": embedded(number),
                    "question": "see the figure", "query_wo": f"{HINT}{index}", "query_cot": f"think, {index}", **about,
                    "metadata": {"split": "testmini", "source": "x", "subject": "Plane Geometry", "subfield": "Angle"},
                }
            )  # fmt: skip
    return rows


def rows(folder: Path) -> list[Row]:
    return questions("mathverse", write_parquet(folder / "testmini.parquet", published()))


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("The point lies on the circle.", "The point lies on the circle."), ("\\boxed{The point lies.}", "The point lies."),
        ("The point lies", "The point lies."), ("5 cm.", "5 cm."),
    ],
)  # fmt: skip
def test_a_full_stop_at_the_end_does_not_count(tmp_path: Path, answer: str, target: str) -> None:
    row = {**rows(tmp_path)[5], "answer": target}
    assert answered("mathverse", [row], [answer])[0].components["accuracy"] == 1


@pytest.mark.parametrize(
    ("answer", "target", "right"), [("5 cm", "5 m", False), ("√2", "\\sqrt{2}", True), ("5 cm", "5", True)]
)
def test_units_and_unicode(tmp_path: Path, answer: str, target: str, right: bool) -> None:
    row = {**rows(tmp_path)[5], "answer": target}
    assert (answered("mathverse", [row], [answer])[0].components["accuracy"] == 1) is right


@pytest.mark.parametrize(
    ("verdict", "right"),
    [("1", True), (" 1.", True), ("1 (consistent)", True), ("Judgement: 1", True), ("Judgment:1", True), ("Judgement: 0", False),
     ("0", False), ("10", False), ("It is 1", False), ("", False)],
)  # fmt: skip
def test_verdicts(tmp_path: Path, verdict: str, right: bool) -> None:
    (answer,) = answered("mathverse", rows(tmp_path)[5:6], ["one half"], verdicts=[verdict])
    assert values("mathverse", [answer])["accuracy_judged"] == right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"), ("(C)", "C"), ("C. 60°", "C"), ("C: 60°", "C"), ("C - 60°", "C"), ("**C**", "C"), ("\\(C\\)", "C"), ("60°", "C"), ("c", "C"),
        ("The answer is C.", "C"), ("The answer is C because it is half the arc.", "C"), ("**Answer:** (C) 60°", "C"), ("**Answer**: C", "C"),
        ("The answer is option C", "C"), ("The answer is 60°.", "C"), ("The correct answer is C. $60^\\circ$", "C"), ("Answer: $C$", "C"),
        ("Angle A is 40°, so B is half of it.\n\nThus, the correct choice is **C**.", "C"), ("So the correct option is (C).", "C"),
        ("So it is C.", "C"), ("I choose C.", "C"), ("Hence C is correct.", "C"), ("The arc has 120°, therefore C.", "C"),
        ("C is the answer.", "C"), ("So the answer should be C.", "C"), ("### C", "C"),
        ("Therefore, the correct option is:\n\nC. They are equal.", "C"), ("### Final answer\nC", "C"),
        ("\\boxed{C}", "C"), ("\\boxed{\\text{C}}", "C"), ("\\boxed{(C)}", "C"), ("\\boxed{60^\\circ}", "C"),
        ("<think>A is a right angle.</think> \\boxed{C}", "C"), ("\\boxed{\\angle A = 60°}", "C"), ("$\\angle A = 60^\\circ$", "C"),
        ("Therefore, the measure of angle A is 60°.", None), ("\\boxed{A + B = 90}", None), ("The answer is point B", None), ("AB", None),
        ("Angle A is 40° and angle C is 60°", None), ("Either B or C", None), ("160°", None), ("The angle at A, so A = 60", None), ("", None),
        ("Option B is too small, so option C.", None), ("F", None), ("\\boxed{10}", None),
    ],
)  # fmt: skip
def test_options(text: str, letter: str | None) -> None:
    """Names of points and angles are not options; unclear answers are left to the judge."""
    assert option_of(text, CHOICES) == letter


def test_texts_of_options_are_whole_ones() -> None:
    roots = "Choices:\nA:2\nB:2√{{3}}\nC:12\nD:3.2"
    assert [option_of(text, roots) for text in ("2", "12", "2√3", "3.2", "x = 2", "1.2")] == [
        "A",
        "C",
        "B",
        "D",
        "A",
        None,
    ]
    assert option_of("B", "no choices here") == "B"


def test_the_judge_is_asked_about_an_angle_that_is_called_as_an_option(tmp_path: Path) -> None:
    row = {**rows(tmp_path)[0], "answer": "A"}
    (answer,) = answered("mathverse", [row], ["Therefore, the measure of angle A is 40°."], verdicts=["0"])
    assert answer.reason is not None and BENCHMARKS["mathverse"].judged.asked(answer)  # type: ignore[union-attr]
    assert values("mathverse", [answer])["accuracy_judged"] == 0


def test_versions_that_no_problem_holds_together_are_refused(tmp_path: Path) -> None:
    without = [{key: value for key, value in row.items() if key != "problem_index"} for row in published()]
    file = write_parquet(tmp_path / "testmini.parquet", without)
    found = [row for _, row in IMPORTERS["mathverse"].rows(Files(file))]
    assert len(found) == 10
    assert all(str(row).startswith("key `problem_index` is missing; found keys sample_index, ") for row in found)


TEXTS = ["B", "The answer is B.", "40°", "A", None, "0.5", "\\boxed{\\frac12}", "x = 1/2", "1/3", "1/2"]
"""Answers to ten questions; the last five belong to the second problem."""


def test_hand_derived(tmp_path: Path) -> None:
    answers = answered("mathverse", rows(tmp_path), TEXTS)
    right = [a.components.get("accuracy", 0) for a in answers]
    assert right == [1, 1, 1, 0, 0, 1, 1, 1, 0, 1]
    found = values("mathverse", answers)
    assert found["accuracy"] == 7 / 10
    assert found["accuracy_multiple_choice"] == 3 / 5
    by_version = [found[f"accuracy_{v.lower().replace(' ', '_')}"] for v in VERSIONS]
    assert by_version == [1, 1, 1, 0, 0.5]
    assert math.isnan(found["accuracy_judged"])
    assert failures("mathverse", answers, "accuracy_vision_only") == (2, 1)
    assert values("mathverse", shuffled(answers, 4)) == pytest.approx(found, nan_ok=True)
    columns = BENCHMARKS["mathverse"].columns(answers)
    assert columns["accuracy questions"].tolist() == [5, 5]  # a problem's versions form one unit
    assert np.allclose(columns["accuracy right"], [3, 4])


def test_perfect_and_empty(tmp_path: Path) -> None:
    perfect = values("mathverse", answered("mathverse", rows(tmp_path), ["B"] * 5 + ["0.5"] * 5))
    assert set(perfect.values()) == {1}  # including judged ones: no answer needs the judge
    assert all(math.isnan(v) for v in values("mathverse", []).values())


def test_the_judge_has_the_last_word_on_what_rules_reject(tmp_path: Path) -> None:
    verdicts = [None] * 3 + ["0", None] + [None] * 3 + ["1", None]
    answers = answered("mathverse", rows(tmp_path), TEXTS, verdicts=verdicts)
    judged = BENCHMARKS["mathverse"].judged
    assert judged is not None
    assert [i for i, a in enumerate(answers) if judged.asked(a)] == [3, 8]
    assert values("mathverse", answers)["accuracy_judged"] == 8 / 10
    message = judged.messages(answers[3])[0]["content"]
    assert CHOICES in message and "\nStandard answer:\nB\n" in message and message.endswith("\nA")


def test_both_forms_give_the_same_rows(tmp_path: Path) -> None:
    tsv = [
        {
            "index": r["sample_index"], "image": in_base64(i % 5) if i < 5 else str(i - 4), "question": r["query_wo"],
            "metadata": str(r["metadata"]), **{k: r[k] for k in ("problem_index", "problem_version", *PROBLEMS[0])},
        }
        for i, r in enumerate(published())
    ]  # fmt: skip
    first, second = rows(tmp_path), questions("mathverse", write_tsv(tmp_path / "MathVerse_MINI.tsv", tsv))
    keys = ("id", "question", "answer", "problem", "problem_version", "question_type", "subfield")
    assert [[row[k] for k in keys] for row in first] == [[row[k] for k in keys] for row in second]
    assert [row["image"]["bytes"] for row in first] == [
        row["image"]["bytes"] for row in second
    ]  # also those referred to


def test_through_all_stages(tmp_path: Path) -> None:
    data = FileDataset(kind="mathverse", path=str(write_parquet(tmp_path / "testmini.parquet", published())))
    table = through_the_stages(tmp_path, "mathverse", data, {str(i + 1): text for i, text in enumerate(TEXTS)})
    found = {r["metric"]: r for r in table.iter_rows(named=True)}
    assert found["accuracy"]["value"] == pytest.approx(0.7)
    assert found["accuracy_text_lite"]["value"] == 1
    assert found["accuracy_judged"]["value"] is None
