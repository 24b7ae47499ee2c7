"""Shares of verdicts, and agreement, by hand and against independent calculations."""

import math
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from perceptune.contracts.errors import UserError
from perceptune.core.comparisons.agreement import Rated, counts, kappa, measured
from perceptune.core.comparisons.labels import label_of, read_labels
from perceptune.core.comparisons.measures import Judgement
from perceptune.core.comparisons.measures import measured as shares_of
from perceptune.core.comparisons.rubrics import Reading

LABELS = ("win", "tie", "lose")


def judgement(item: str, outcome: str | None, first: bool = True, dropped: bool = False) -> Judgement:
    grades = {"win": (3, 2), "tie": (2, 2), "lose": (1, 3)}
    reading = Reading(outcome, grades[outcome]) if outcome else None
    return Judgement(item, item, first, reading, dropped)


def test_shares_by_hand() -> None:
    """Five pairs, the last in both orders; one verdict cannot be read. Shares are of verdicts."""
    judgements = [
        judgement("1", "win", True), judgement("2", "win", False, dropped=True), judgement("3", "tie", True),
        judgement("4", None, True, dropped=True), judgement("5", "lose", True, dropped=True), judgement("5", "win", False),
    ]  # fmt: skip
    found = shares_of(judgements, of_pairs=True, both_orders=True, grades=True, resamples=99, seed=0)
    expected = {
        "win_rate": (3.5, 5), "win": (3, 5), "tie": (1, 5), "lose": (1, 5),
        "first_preferred": (1, 4),  # of 1; B won in 2 and 5, and in 5 again
        "consistent": (0, 1), "grade": (3 + 3 + 2 + 1 + 3, 5), "other_grade": (2 + 2 + 2 + 3 + 2, 5),
        "invalid": (1, 5), "dropped": (2, 5), "invalid_of_dropped": (1, 2), "dropped_of_invalid": (1, 1),
    }  # fmt: skip
    assert {name: (value.count, value.of) for name, value in found.items()} == expected
    assert all(value.value == pytest.approx(value.count / value.of) for value in found.values())
    assert all(value.low <= value.value <= value.high for value in found.values())


def test_a_pair_that_was_read_in_one_order_counts_half() -> None:
    judgements = [
        *(judgement("1", "win", first) for first in (True, False)),
        judgement("2", "lose"),
        judgement("2", None, False),
    ]
    found = shares_of(judgements, of_pairs=True, both_orders=True, grades=True, resamples=9, seed=0)
    assert {name: (found[name].count, found[name].of) for name in ("win_rate", "invalid", "consistent")} == {
        "win_rate": (2, 3),
        "invalid": (1, 3),
        "consistent": (1, 1),
    }


def test_a_share_of_nothing_is_unknown_and_a_single_question_has_no_interval() -> None:
    one = shares_of([judgement("1", "tie")], of_pairs=False, both_orders=False, grades=False, resamples=9, seed=0)
    assert math.isnan(one["first_preferred"].value)
    assert (one["win_rate"].value, math.isnan(one["win_rate"].low)) == (0.5, True)
    unread = shares_of([judgement("1", None)] * 2, of_pairs=False, both_orders=False, grades=False, resamples=9, seed=0)
    assert math.isnan(unread["win_rate"].value)


def test_questions_are_resampled_with_all_their_verdicts() -> None:
    """Each question five times is the same information as once: the interval does not shrink."""
    once = [judgement(str(i), "win" if i % 3 else "lose") for i in range(60)]
    kinds = {"of_pairs": False, "both_orders": False, "grades": False}
    alone = shares_of(once, **kinds, resamples=2000, seed=1)["win_rate"]
    repeated = shares_of(once * 5, **kinds, resamples=2000, seed=1)["win_rate"]
    assert (alone.low, alone.high) == (repeated.low, repeated.high)
    spread = NormalDist().inv_cdf(0.975) * math.sqrt((2 / 3) * (1 / 3) / 60)  # of a binomial share
    assert alone.high - alone.low == pytest.approx(2 * spread, rel=0.1)


def exact_kappa(pairs: list[tuple[str, str]]) -> Fraction:
    """By the definition, with exact fractions."""
    n = len(pairs)
    equal = Fraction(sum(a == b for a, b in pairs), n)
    rates = [[Fraction(sum(pair[side] == label for pair in pairs), n) for label in LABELS] for side in (0, 1)]
    expected = sum((a * b for a, b in zip(*rates, strict=True)), Fraction(0))
    return (equal - expected) / (1 - expected)


@pytest.mark.parametrize("seed", range(4))
def test_kappa_is_that_of_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one = generator.choice(LABELS, 40)
    other = np.where(generator.random(40) < 0.6, one, generator.choice(LABELS, 40))
    pairs = [(str(a), str(b)) for a, b in zip(one, other, strict=True)]
    found = measured([Rated(str(i), *pair) for i, pair in enumerate(pairs)], LABELS, resamples=9, seed=0)
    assert found["kappa"][0] == pytest.approx(float(exact_kappa(pairs)), abs=1e-12)
    assert found["agreement"][0] == pytest.approx(np.mean(one == other))


def test_kappa_of_the_textbook() -> None:
    """50 proposals, read by two people: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no. p = 0.7, e = 0.5."""
    assert float(kappa(np.array([[20.0, 5.0], [10.0, 15.0]]))) == pytest.approx(0.4)
    assert math.isnan(float(kappa(np.array([[9.0, 0.0], [0.0, 0.0]]))))  # one label: kappa is 0 / 0
    assert math.isnan(float(kappa(np.zeros((2, 2)))))


def test_the_interval_of_kappa_is_that_of_resampled_questions() -> None:
    """Against a plain loop that draws questions and recomputes kappa by its definition."""
    generator = np.random.default_rng(3)
    pairs = [
        (a, a if generator.random() < 0.7 else str(generator.choice(LABELS)))
        for a in map(str, generator.choice(LABELS, 60))
    ]
    units = [str(i // 2) for i in range(60)]  # two answers to each question
    rated = [Rated(unit, *pair) for unit, pair in zip(units, pairs, strict=True)]
    value, low, high = measured(rated, LABELS, resamples=4000, seed=0)["kappa"]
    draws = []
    for _ in range(4000):
        chosen = generator.integers(0, 30, 30)
        draws.append(float(exact_kappa([pairs[2 * int(q) + i] for q in chosen for i in (0, 1)])))
    expected = np.quantile(draws, [0.025, 0.975])
    assert low < value < high
    assert (low, high) == pytest.approx(tuple(expected), abs=0.02)  # Monte Carlo error of both
    assert sum(counts(rated).values()) == 60


def test_without_items_nothing_is_known() -> None:
    assert all(
        math.isnan(number) for numbers in measured([], LABELS, resamples=9, seed=0).values() for number in numbers
    )


FILES = {
    "labels.csv": "example_id,policy,label,note\n1,dpo,Win,x\n2,,lose,\n",
    "labels.jsonl": '{"example_id": 1, "policy": "dpo", "label": "win"}\n{"example_id": "2", "label": "lose"}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_labels_are_found_by_question_and_policy_or_by_key(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    labels = read_labels(tmp_path / name, LABELS)
    assert label_of(labels, "k", "1", ("dpo",), None) == "win"
    assert label_of(labels, "k", "1", ("perpo",), None) is None
    assert label_of(labels, "k", "2", ("perpo",), "focus") == "lose"
    assert label_of(labels, "k", "1", ("dpo@3", "dpo"), None) == "win"
    assert label_of(read_labels(tmp_path / name, LABELS, of_policies=False), "k", "1", (), None) == "win"
    (tmp_path / "keys.jsonl").write_text('{"key": "abc", "label": "tie"}\n')
    labels = read_labels(tmp_path / "keys.jsonl", LABELS)
    assert label_of(labels, "abc", "9", ("dpo",), None) == "tie"
    assert label_of(labels, "abd", "9", ("dpo",), None) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"example_id": 1, "label": "won"}', "line 1: `label` is 'won', expected one of `win`, `tie`, `lose`"),
        ('{"example_id": 1, "labl": "win"}', "line 1: no `label`, expected one of `win`, `tie`, `lose`; did you mean"),
        ('{"label": "win"}', "line 1: neither `key` nor `example_id`"),
        ('{"example_id": [1], "label": "win"}', "line 1: `example_id` is [1], expected text"),
        ('{"example_id": 1, "label": "win"}\n{"example_id": 1, "label": "tie"}', "line 2: found another label"),
        ('["win"]', "expected an object with `example_id` and `label`"),
        ("", "labels.jsonl`"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_labels(file, LABELS)
    assert expected in str(caught.value)
