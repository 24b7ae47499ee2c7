"""Confusion counts of yes/no answers, and the rates computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perceptune.core.rewards.metrics import Columns, Metric, ratio

Counts = dict[str, list[float]]


@dataclass(frozen=True)
class Read:
    """One answer as read by a rule."""

    predicted: bool
    """Whether the answer is the positive one."""
    true: bool
    """Whether the ground truth is the positive one."""
    right: bool
    """Whether the answer equals the ground truth; False if it is neither yes nor no."""


def counts(name: str, reads: Sequence[Read | None]) -> Counts:
    """Columns `<name> n`, `right`, `hits`, `predicted` and `true`, one number per answer; all 0 for
    None, an answer outside the group.
    """
    known = [(1.0, r.right, r.predicted and r.true, r.predicted, r.true) if r else (0.0,) * 5 for r in reads]
    columns = ("n", "right", "hits", "predicted", "true")
    return {f"{name} {column}": [float(row[place]) for row in known] for place, column in enumerate(columns)}


def rates(name: str) -> dict[str, Metric]:
    """`f1`, `accuracy`, `precision` and `recall` of the positive answer, and `positive_ratio`, its
    share of all answers.

    NaN if the group has no questions; precision, recall and F1 are 0 if their denominator is 0.
    """

    def total(columns: Columns, column: str) -> np.ndarray:
        return np.asarray(columns[f"{name} {column}"].sum(axis=-1))

    def rate(above: str, *below: str, times: int = 1) -> Metric:
        return where_asked(
            name,
            lambda columns: ratio(times * total(columns, above), np.sum([total(columns, b) for b in below], axis=0)),
        )

    return {
        "f1": rate("hits", "predicted", "true", times=2),
        "accuracy": rate("right", "n"),
        "precision": rate("hits", "predicted"),
        "recall": rate("hits", "true"),
        "positive_ratio": rate("predicted", "n"),
    }


def where_asked(name: str, metric: Metric) -> Metric:
    """The metric, or NaN where group `name` has no questions or an unknown number of them."""
    return lambda columns: np.where(columns[f"{name} n"].sum(axis=-1) > 0, metric(columns), np.nan)
