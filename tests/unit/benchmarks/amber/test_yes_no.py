"""AMBER's yes/no questions, compared with plain loops over the official annotations."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from perceptune.core.answers.yes_no import beginning
from perceptune.core.benchmarks.amber.answers import official_answer
from perceptune.core.rewards.reward import Answers

from tests.unit.benchmarks.answering import Row, answered, failures, shuffled, values

from .texts import SAID, yes_no_rows


def by_hand(rows: list[Row], texts: list[str], read: Callable[[str], str | None]) -> dict[str, dict[str, int]]:
    """The official script's counters: questions, right answers, true no, hits, predicted no,
    correct no.
    """
    groups = ("discriminative", "existence", "attribute", "state", "number", "action", "relation")
    names = ("num", "correct", "no_num", "no_score", "ans_no_num", "ans_no_score")
    table = {group: dict.fromkeys(names, 0) for group in groups}
    for row, text in zip(rows, texts, strict=True):
        counted_in = ["discriminative"]
        if row["type"].startswith("discriminative-attribute"):
            counted_in += ["attribute", row["type"].rsplit("-", 1)[1]]
        else:
            counted_in.append("existence" if row["type"] == "discriminative-hallucination" else "relation")
        predicted = read(text)
        for group in counted_in:
            counters = table[group]
            counters["num"] += 1
            counters["correct"] += predicted == row["answer"]
            if row["answer"] == "no":
                counters["no_num"] += 1
                counters["no_score"] += predicted == "no"
            if predicted == "no":
                counters["ans_no_num"] += 1
                counters["ans_no_score"] += row["answer"] == "no"
    return table


def exactly(text: str) -> str | None:
    return "yes" if text.strip() == "Yes" else "no" if text.strip() == "No" else None


def begins(text: str) -> str | None:
    lower = text.strip().lower()
    return "yes" if lower[:3] == "yes" else "no" if lower[:2] == "no" else None


def check(rows: list[Row], texts: list[str]) -> dict[str, float]:
    found = values("amber_discriminative", answered("amber_discriminative", rows, texts))
    for ending, read in (("", exactly), ("_by_beginning", begins)):
        for group, c in by_hand(rows, texts, read).items():
            precision = c["ans_no_score"] / c["ans_no_num"] if c["ans_no_num"] else 0.0
            recall = c["no_score"] / c["no_num"]
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            wanted = {"accuracy": c["correct"] / c["num"], "precision": precision, "recall": recall, "f1": f1}
            for name, value in wanted.items():
                assert found[f"{group}_{name}{ending}"] == pytest.approx(value, abs=1e-12), (group, name, ending)
            # the script's last digits: it rounds percentages before F1, and adds up to 0.001 to the
            # denominator
            printed_precision, printed_recall = round(precision * 100, 1) / 100, round(recall * 100, 1) / 100
            extra = 0.001 if group == "existence" else 0.0001
            printed = 200 * printed_precision * printed_recall / (printed_precision + printed_recall + extra)
            assert 100 * f1 == pytest.approx(round(printed, 1), abs=0.15)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_any_answers(rows: list[Row], seed: int) -> None:
    draw = Random(seed)
    found = check(yes_no_rows(rows), [draw.choice(SAID) for _ in yes_no_rows(rows)])
    assert found["discriminative_f1"] < found["discriminative_f1_by_beginning"]


def test_all_no(rows: list[Row]) -> None:
    """The truth is no for 9,427 of 14,216 questions: all 4,924 about existence, 689 of 1,664 about
    relations.
    """
    found = check(yes_no_rows(rows), ["No"] * 14216)
    assert found["discriminative_precision"] == pytest.approx(9427 / 14216)
    assert found["discriminative_recall"] == 1.0
    assert found["existence_f1"] == 1.0
    assert found["relation_precision"] == pytest.approx(689 / 1664)
    assert found["state_f1"] == found["attribute_f1"] == pytest.approx(2 / 3)


def test_all_yes(rows: list[Row]) -> None:
    found = check(yes_no_rows(rows), ["Yes"] * 14216)
    assert found["discriminative_f1"] == found["existence_accuracy"] == 0.0
    assert found["relation_accuracy"] == pytest.approx(975 / 1664)
    assert found["action_accuracy"] == 0.5


def test_perfect(rows: list[Row]) -> None:
    found = check(yes_no_rows(rows), [row["answer"].capitalize() for row in yes_no_rows(rows)])
    assert set(found.values()) == {1.0}


@pytest.mark.parametrize("text", ["", None])
def test_empty_and_missing_answers(rows: list[Row], text: str | None) -> None:
    answers = answered("amber_discriminative", yes_no_rows(rows), [text] * 14216)
    assert set(values("amber_discriminative", answers).values()) == {0.0}
    for metric in ("discriminative_f1", "discriminative_f1_by_beginning"):
        assert failures("amber_discriminative", answers, metric) == (14216, 14216)
    assert failures("amber_discriminative", answers, "relation_f1") == (1664, 1664)


def test_words_after_yes_are_wrong_officially_and_counted(rows: list[Row]) -> None:
    answers = answered("amber_discriminative", yes_no_rows(rows), ["No, it is not."] * 14216)
    found = values("amber_discriminative", answers)
    assert (found["discriminative_f1"], found["existence_f1_by_beginning"]) == (0.0, 1.0)
    assert failures("amber_discriminative", answers, "discriminative_f1") == (14216, 14216)
    assert failures("amber_discriminative", answers, "discriminative_f1_by_beginning") == (14216, 0)


def test_order_does_not_matter(rows: list[Row]) -> None:
    draw = Random(4)
    answers = answered("amber_discriminative", yes_no_rows(rows), [draw.choice(SAID) for _ in yes_no_rows(rows)])
    assert values("amber_discriminative", shuffled(answers, 1)) == values("amber_discriminative", answers)


def test_known_counts() -> None:
    """80 true yes, 10 false yes, 20 false no, 90 true no, where "no" is positive; existence at
    recall 71.2 %.
    """
    made = [("Yes", "yes")] * 80 + [("Yes", "no")] * 10 + [("No", "yes")] * 20 + [("No", "no")] * 90
    found = values("amber_discriminative", small([(predicted, true, "relation") for predicted, true in made]))
    assert found["relation_precision"] == pytest.approx(0.8182, abs=5e-5)
    assert found["relation_recall"] == 0.9
    assert found["relation_f1"] == pytest.approx(0.8571, abs=5e-5)
    exist = [("No" if number < 712 else "Yes", "no", "discriminative-hallucination") for number in range(1000)]
    found = values("amber_discriminative", small(exist))
    assert (found["existence_precision"], found["existence_recall"]) == (1.0, 0.712)
    assert found["existence_f1"] == pytest.approx(0.8318, abs=5e-5)
    assert np.isnan(found["relation_f1"])  # there are no such questions


def small(made: list[tuple[str, str, str]]) -> list[Any]:
    rows = [
        {"id": str(n), "question": "?", "answer": true, "type": kind, "task": "existence", "image_file": str(n)}
        for n, (_, true, kind) in enumerate(made)
    ]
    return answered("amber_discriminative", rows, [text for text, _, _ in made])


@pytest.mark.parametrize(
    ("text", "exact", "start"),
    [
        ("Yes", "yes", "yes"), ("No", "no", "no"), (" Yes", "yes", "yes"), ("yes", None, "yes"), ("No.", None, "no"), ("", None, None),
        ("Nothing", None, "no"), ("It is", None, None), ("Yes, but no", None, "yes"),
    ],
)  # fmt: skip
def test_rules(text: str, exact: str | None, start: str | None) -> None:
    assert (official_answer(text), beginning(text)) == (exact, start)


def test_answers_are_scored_alone() -> None:
    """The reward of the yes/no questions also works without sources."""
    answers = Answers(["Yes", "no"], ["yes", "no"], np.full((2, 4), np.nan), np.ones((2, 2)), "padded_square")
    from tests.plugins import REWARDS

    assert REWARDS["amber"](answers).rewards.tolist() == [1.0, 0.0]
