"""LogicVista: sets of letters, by skill; its own JSON file, Parquet and TSV."""

import math
from pathlib import Path

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.answers.extraction import letter_set, letters_in

from tests.official_data import official
from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import Row, answered, failures, questions, shuffled, through_the_stages, values
from tests.unit.benchmarks.tables import (
    drawn_names,
    embedded,
    in_base64,
    write_json,
    write_parquet,
    write_tsv,
)

RECORDS = {
    "v1_0": {"imagename": "v1_0.png", "question": "Which comes next?", "answer": "C", "skill": ["inductive"]},
    "v1_1": {"imagename": "v1_1.png", "question": "Which two are the same?", "answer": "B, A", "skill": ["spatial"]},
    "v1_2": {
        "imagename": "v1_2.png",
        "question": "Which gear turns left?",
        "answer": "D",
        "skill": ["mechanical", "inductive"],
    },
}


def own(folder: Path) -> Path:
    """`data/dataset.json` with `data/images`."""
    drawn_names(folder / "images", [r["imagename"] for r in RECORDS.values()])  # type: ignore[misc]
    return write_json(folder / "dataset.json", RECORDS)


def rows(folder: Path) -> list[Row]:
    return questions("logicvista", own(folder))


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("BA", "ab"),
        ("b, A", "ab"),
        ("B;A", "ab"),
        ("A", "a"),
        ("the answer", None),
        ("", None),
        ("A and B", None),
        ("2", "2"),
    ],
)
def test_what_officially_counts_as_letters(text: str, letters: str | None) -> None:
    assert letter_set(text) == letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The answer is C.", "c"), ("First A fits, but\nthe answer is: (B), (D)", "bd"), ("\\boxed{AC}", "ac"), ("**C**", "c"),
        ("C. the third figure", "c"), ("none of them", None), ("It is c", None), ("", None), ("YES", "esy"),
        ("So I choose B.", "b"), ("Hence I pick option B", "b"), ("A comparison shows that D fits best.", "d"),
        ("I'd say it's D.", "d"), ("Answer: I think it is B", "b"), ("First, the dot moves. A closer look: D", "d"),
        ("A", "a"), ("(A)", "a"), ("I", "i"), ("\\boxed{I}", "i"), ("The answer is I.", "i"), ("It is A.", "a"),
        ("The answer is A because the arrow turns.", "a"), ("A is the odd one out.", "a"), ("Figure A completes the sequence.", "a"),
        ("A, C", "ac"), ("The answers are AC", "ac"), ("A and C are the same.", "ac"), ("\\boxed{\\text{A, C}}", "ac"),
        ("<think>A looks right, but I doubt it.</think> \\boxed{D}", "d"), ("**Answer**: C", "c"), ("$C$", "c"),
        ('The figure on the right, labeled "D," is a rotation.', "d"), ("So the answer is 'A'.", "a"), ("So ABC it is", None),
        ("The answer is 3.", "3"), ("3", "3"), ("There are 3 dots", None),
    ],
)  # fmt: skip
def test_letters_of_answers(text: str, letters: str | None) -> None:
    """ "I" and "A" are options only if they cannot be words."""
    assert letters_in(text) == letters


@pytest.mark.parametrize(
    ("verdict", "right"),
    [("B", True), ("B.", True), ("(B)", True), ("**B**", True), ("b", True), ("B. the second", False), ("BD", False), ("", False)],
)  # fmt: skip
def test_punctuation_around_the_judges_letters_does_not_count(tmp_path: Path, verdict: str, right: bool) -> None:
    row = {**rows(tmp_path)[0], "answer": "B"}
    (answer,) = answered("logicvista", [row], ["the second"], verdicts=[verdict])
    assert values("logicvista", [answer])["accuracy_judged"] == right


def test_several_letters_of_the_judge(tmp_path: Path) -> None:
    (_, row, _) = rows(tmp_path)
    judged_answers = [
        answered("logicvista", [row], ["?"], verdicts=[verdict]) for verdict in ("A, B.", "(A), (B)", "A and B")
    ]
    assert [values("logicvista", one)["accuracy_judged"] for one in judged_answers] == [1, 1, 0]


def test_hand_derived_and_judged(tmp_path: Path) -> None:
    texts = ["The answer is C", "A, B", "the second gear"]
    answers = answered("logicvista", rows(tmp_path), texts)
    found = values("logicvista", answers)
    assert found["accuracy"] == 2 / 3
    assert (found["accuracy_inductive"], found["accuracy_spatial"], found["accuracy_mechanical"]) == (0.5, 1, 0)
    assert math.isnan(found["accuracy_deductive"]) and math.isnan(found["accuracy_judged"])
    assert failures("logicvista", answers, "accuracy") == (3, 1)
    assert values("logicvista", shuffled(answers, 5)) == pytest.approx(found, nan_ok=True)
    judged = answered("logicvista", rows(tmp_path), texts, verdicts=["C", "AB", "D"])
    assert values("logicvista", judged)["accuracy_judged"] == 1
    wrong = answered("logicvista", rows(tmp_path), [*texts[:2], None], verdicts=["Z", "A", None])
    assert values("logicvista", wrong)["accuracy_judged"] == 0
    message = BENCHMARKS["logicvista"].judged.messages(answers[2])[0]["content"]  # type: ignore[union-attr]
    assert "Which gear turns left?" in message and message.endswith("the second gear")
    assert all(math.isnan(v) for v in values("logicvista", []).values())


def test_a_record_without_question_and_answer_counts_and_nothing_is_right(tmp_path: Path) -> None:
    """The published file has one."""
    empty = {"v1_3": {"imagename": "v1_3.png", "question": "", "answer": "", "skill": ["spatial"]}}
    drawn_names(tmp_path / "images", [r["imagename"] for r in {**RECORDS, **empty}.values()])  # type: ignore[misc]
    path = write_json(tmp_path / "dataset.json", {**RECORDS, **empty})
    data = FileDataset(kind="logicvista", path=str(path))
    table = through_the_stages(tmp_path, "logicvista", data, {**dict.fromkeys(RECORDS, "C"), "v1_3": ""})
    found = {r["metric"]: r for r in table.iter_rows(named=True)}
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (pytest.approx(1 / 4), 4)
    row = questions("logicvista", path)[-1]
    judged = answered("logicvista", [row], ["The answer is B"], verdicts=["Z"])
    assert values("logicvista", judged)["accuracy_judged"] == 0


def test_the_published_file_is_read_whole() -> None:
    found = questions("logicvista", official("logicvista") / "dataset.json")
    assert len(found) == 448
    assert [row["id"] for row in found if row["answer"] is None] == ["v1_382"]


def test_all_forms_give_the_same_rows(tmp_path: Path) -> None:
    given = list(RECORDS.items())
    kept = ("question", "answer")
    parquet = [
        {"id": k, "image": embedded(i), "skill": r["skill"], **{n: r[n] for n in kept}}
        for i, (k, r) in enumerate(given)
    ]
    tsv = [
        {"index": k, "image": in_base64(i), "skill": str(r["skill"]), **{n: r[n] for n in kept}}
        for i, (k, r) in enumerate(given)
    ]
    first = rows(tmp_path)
    assert first[0]["image"] == "images/v1_0.png"
    for second in (
        questions("logicvista", write_parquet(tmp_path / "test.parquet", parquet)),
        questions("logicvista", write_tsv(tmp_path / "LogicVista.tsv", tsv)),
    ):
        keys = ("id", "question", "answer", "skills")
        assert [[row[k] for k in keys] for row in first] == [[row[k] for k in keys] for row in second]


def test_through_all_stages(tmp_path: Path) -> None:
    data = FileDataset(kind="logicvista", path=str(own(tmp_path)))
    table = through_the_stages(tmp_path, "logicvista", data, dict.fromkeys(RECORDS, "C"))
    found = {r["metric"]: r["value"] for r in table.iter_rows(named=True)}
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy_inductive"] == 0.5
