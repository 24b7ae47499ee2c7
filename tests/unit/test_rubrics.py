"""Rubrics of comparisons: what judges are shown, and how their verdicts are read."""

from dataclasses import replace

import pytest
from perceptune.core.comparisons.rubrics import (
    Pair,
    Reading,
    is_invalid,
    messages,
    one_comes_first,
    reading_of,
)

PAIR = Pair("7", "What is it?", "a {b}", "a dog", {"A good answer": "A cat.", "A bad answer": " "})


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("A", "win"), ("b.", "lose"), ("Tie", "tie"), ("[[A]]", "win"), ("[[C]]", "tie"), ("**B** is more exact", "lose"),
        ("Answer A", "win"), ("The better answer is B", None), ("Better answer: B\nbecause", "lose"), ("A, since it", "win"),
        ("A good answer would be B", None), ("Both are fine", None), ("A is worse than B", None), ("A is not better", None),
        ("Answer A is wrong; B is right", None), ("A: wrong, B: right", None), ("A, B or tie", None), ("B is less accurate", None),
        ("Tie-break: B", None), ("**A** is wrong", None), ("A is the better answer", "win"), ("A. It is exact", "win"),
        ("B - because it counts", "lose"), ("A tie.", "tie"), ("Verdict: tie, as both say so", "tie"), ("AB", None), ("", None), (None, None), ("draw", "tie"),
        ("4", None), ("Winner: A", "win"), ("final verdict: tie", "tie"),
    ],
)  # fmt: skip
def test_a_preference_is_the_first_word(verdict: str | None, outcome: str | None) -> None:
    found = reading_of("preference", verdict, one_first=True)
    assert (found and found.outcome) == outcome
    mirrored = {"win": "lose", "lose": "win"}
    found = reading_of("preference", verdict, one_first=False)
    assert (found and found.outcome) == mirrored.get(outcome or "", outcome)


@pytest.mark.parametrize(
    ("verdict", "grades"),
    [
        ("A: 3\nB: 1", (3, 1)), ("Answer A: 2\nAnswer B = 2", (2, 2)), ("**A:** 1/3\n**B:** 3/3", (1, 3)),
        ("A: 4\nB: 1", None), ("A: 0\nB: 1", None), ("A: 2.5\nB: 1", None), ("A: -1\nB: 1", None), ("A: 2", None),
        ("A: 2\nB: 1\nA: 3", None), ("A: 2\nB: 1\nA: 2", (2, 1)), ("fine", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_grades_are_1_to_3_for_each_answer(verdict: str | None, grades: tuple[int, int] | None) -> None:
    found = reading_of("grades", verdict, one_first=True)
    assert (found and found.grades) == grades
    swapped = reading_of("grades", verdict, one_first=False)
    assert (swapped and swapped.grades) == (grades and grades[::-1])
    if found and grades:
        assert found.outcome == {1: "win", 0: "tie", -1: "lose"}[(grades[0] > grades[1]) - (grades[0] < grades[1])]


def test_a_pair_is_invalid_by_the_rule_of_p2dpo() -> None:
    """Its chosen answer gets 1, or less than the rejected one."""
    valid = {(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)}
    for one in (1, 2, 3):
        for other in (1, 2, 3):
            outcome = "win" if one > other else "lose" if one < other else "tie"
            assert is_invalid(Reading(outcome, (one, other))) == ((one, other) not in valid)
    assert [is_invalid(Reading(outcome)) for outcome in ("win", "tie", "lose")] == [False, False, True]


def test_the_order_depends_on_seed_and_pair_alone() -> None:
    orders = [one_comes_first(0, f"q{i}") for i in range(2000)]
    assert orders == [one_comes_first(0, f"q{i}") for i in range(2000)]
    assert 900 < sum(orders) < 1100  # 4.5 standard deviations of a fair coin
    other = [one_comes_first(1, f"q{i}") for i in range(2000)]
    assert 900 < sum(a == b for a, b in zip(orders, other, strict=True)) < 1100


def test_the_judge_sees_question_facts_and_both_answers() -> None:
    for rubric in ("preference", "grades"):
        (chat,) = messages(rubric, None, PAIR, one_first=False)  # type: ignore[arg-type]
        assert "Answer A:\na dog\n\nAnswer B:\na {b}\n" in chat["content"]
        assert "A good answer:\nA cat.\n\nQuestion:\nWhat is it?" in chat["content"]
        assert "A bad answer" not in chat["content"]  # it is empty
        assert "but you know something about it" in chat["content"]
        (bare,) = messages(rubric, None, replace(PAIR, facts={}), one_first=True)  # type: ignore[arg-type]
        assert "You cannot see the image.\n\nQuestion:" in bare["content"]
    assert messages("grades", "{question}|{a}|{b}", PAIR, one_first=True)[0]["content"] == "What is it?|a {b}|a dog"
