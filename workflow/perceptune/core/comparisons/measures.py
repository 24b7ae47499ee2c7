"""Metrics of judged comparisons: shares of verdicts, and means of grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perceptune.core.benchmarks.benchmark import summed
from perceptune.core.benchmarks.bootstrap import bounds, resampled_totals
from perceptune.core.comparisons.rubrics import Reading, is_invalid
from perceptune.core.rewards.metrics import known_ratio


@dataclass(frozen=True)
class Judgement:
    """One verdict on a pair."""

    unit: str
    """The question. Intervals resample questions with all their verdicts."""
    item: str
    """The pair."""
    one_first: bool
    reading: Reading | None
    """None: the verdict cannot be read."""
    dropped: bool = False
    """Whether the experiment's filter drops the pair."""
    by_judge: bool = True
    """Whether the judge was asked. Otherwise the outcome says nothing about a preferred place."""


@dataclass(frozen=True)
class Share:
    """A metric: the sum of one column divided by that of another."""

    above: str
    below: str
    label: str
    """Name in the report."""
    percent: bool = True


OF_VERDICTS = {
    "win_rate": Share("points", "read", "win rate, ties count half"),
    "win": Share("win", "read", "wins"),
    "tie": Share("tie", "read", "ties"),
    "lose": Share("lose", "read", "losses"),
    "first_preferred": Share("first", "decided", "first answer preferred, of the decided"),
}
OF_BOTH_ORDERS = {"consistent": Share("consistent", "both", "same outcome in both orders")}
OF_GRADES = {
    "grade": Share("grade", "graded", "mean grade", percent=False),
    "other_grade": Share("other_grade", "graded", "mean grade of the other", percent=False),
}
OF_PAIRS = {
    "invalid": Share("invalid", "read", "invalid pairs"),
    "dropped": Share("dropped", "read", "pairs that the filter drops"),
    "invalid_of_dropped": Share("both_out", "dropped", "invalid, of those that the filter drops"),
    "dropped_of_invalid": Share("both_out", "invalid", "dropped by the filter, of the invalid"),
}
SHARES: Mapping[str, Share] = {**OF_VERDICTS, **OF_BOTH_ORDERS, **OF_GRADES, **OF_PAIRS}


@dataclass(frozen=True)
class Value:
    """A metric with its 95 % interval; NaN where it is not defined."""

    count: float
    """The sum above; for `win_rate`, wins plus half of the ties."""
    of: float
    value: float
    low: float
    high: float


def measured(
    judgements: Sequence[Judgement], *, of_pairs: bool, both_orders: bool, grades: bool, resamples: int, seed: int
) -> dict[str, Value]:
    """Metric to value. `of_pairs` adds P2-DPO's counts of invalid pairs."""
    shares = {
        **OF_VERDICTS,
        **(OF_BOTH_ORDERS if both_orders else {}),
        **(OF_GRADES if grades else {}),
        **(OF_PAIRS if of_pairs else {}),
    }
    if not judgements:
        return {}
    columns = summed([one.unit for one in judgements], _columns(judgements))
    (drawn,) = resampled_totals([columns], resamples=resamples, seed=seed)
    several = next(iter(columns.values())).size > 1
    found = {}
    for name, share in shares.items():
        above, below = (float(columns[column].sum()) for column in (share.above, share.below))
        value = above / below if below else np.nan
        totals = [drawn[column].sum(axis=-1) for column in (share.above, share.below)]
        draws = known_ratio(*totals) if several and below else np.full(1, np.nan)
        found[name] = Value(above, below, value, *bounds(draws))
    return found


def _columns(judgements: Sequence[Judgement]) -> dict[str, list[float]]:
    outcomes = [one.reading.outcome if one.reading else None for one in judgements]
    invalid = [one.reading is not None and is_invalid(one.reading) for one in judgements]
    dropped = [one.reading is not None and one.dropped for one in judgements]
    graded = [one.reading.grades if one.reading and one.reading.grades else (0, 0) for one in judgements]
    first = [
        one.by_judge and outcome == ("win" if one.one_first else "lose")
        for outcome, one in zip(outcomes, judgements, strict=True)
    ]
    twice = _twice(judgements)
    columns: dict[str, list[bool] | list[float]] = {
        "read": [outcome is not None for outcome in outcomes],
        **{name: [outcome == name for outcome in outcomes] for name in ("win", "tie", "lose")},
        "points": [{"win": 1.0, "tie": 0.5}.get(outcome or "", 0.0) for outcome in outcomes],
        "decided": [
            one.by_judge and outcome in ("win", "lose") for outcome, one in zip(outcomes, judgements, strict=True)
        ],
        "first": first,
        "both": [one.item in twice and one.one_first for one in judgements],
        "consistent": [twice.get(one.item, False) and one.one_first for one in judgements],
        "graded": [one != 0 for one, _ in graded],
        "grade": [float(one) for one, _ in graded],
        "other_grade": [float(other) for _, other in graded],
        "invalid": invalid,
        "dropped": dropped,
        "both_out": [a and b for a, b in zip(invalid, dropped, strict=True)],
    }
    return {name: [float(value) for value in values] for name, values in columns.items()}


def _twice(judgements: Sequence[Judgement]) -> dict[str, bool]:
    """Pairs with two readable verdicts, and whether these have the same outcome."""
    outcomes: dict[str, list[str]] = {}
    for one in judgements:
        if one.reading and one.by_judge:
            outcomes.setdefault(one.item, []).append(one.reading.outcome)
    return {item: len(set(found)) == 1 for item, found in outcomes.items() if len(found) > 1}
