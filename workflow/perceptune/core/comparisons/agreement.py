"""Agreement of two raters on the same items: raw agreement and Cohen's kappa.

Kappa is (p - e) / (1 - e), where p is the share of equal labels and e the share expected if both
raters drew their labels independently at their own rates (Cohen 1960, doi:10.1177/001316446002000104).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from perceptune.core.benchmarks.benchmark import summed
from perceptune.core.benchmarks.bootstrap import bounds, resampled_totals
from perceptune.core.rewards.metrics import Columns, known_ratio, ratio


class Rated(NamedTuple):
    """The labels of two raters for one item."""

    unit: str
    """The question. Intervals resample questions with all their items."""
    one: str
    other: str


def counts(rated: Iterable[Rated]) -> dict[tuple[str, str], int]:
    """How often each pair of labels occurs."""
    return dict(Counter((item.one, item.other) for item in rated))


def kappa(table: np.ndarray) -> np.ndarray:
    """Cohen's kappa of tables of counts, shape (..., labels, labels): shape (...).

    NaN without items, and where both raters give all items the same label.
    """
    total = table.sum(axis=(-2, -1))
    equal = ratio(np.trace(table, axis1=-2, axis2=-1), total)
    expected = ratio((table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1), total**2)
    known = (total > 0) & (expected < 1)
    return np.where(known, (equal - expected) / np.where(known, 1 - expected, 1), np.nan)


def agreement(table: np.ndarray) -> np.ndarray:
    """The share of items with equal labels, of tables as in `kappa`; NaN without items."""
    return known_ratio(np.trace(table, axis1=-2, axis2=-1), table.sum(axis=(-2, -1)))


def measured(
    rated: Sequence[Rated], labels: Sequence[str], *, resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """`agreement` and `kappa`, each with its bootstrap interval: (value, low, high).

    `labels` are all labels that occur. NaN where a number is not defined.
    """
    if not rated:
        return dict.fromkeys(("agreement", "kappa"), (np.nan,) * 3)
    columns = summed(
        [item.unit for item in rated],
        {
            f"{i} {j}": [float((item.one, item.other) == (labels[i], labels[j])) for item in rated]
            for i in range(len(labels))
            for j in range(len(labels))
        },
    )
    (drawn,) = resampled_totals([columns], resamples=resamples, seed=seed)
    several = next(iter(columns.values())).size > 1
    found = {}
    for name, measure in (("agreement", agreement), ("kappa", kappa)):
        value = float(measure(_table(columns, len(labels))))
        draws = measure(_table(drawn, len(labels))) if several else np.full(1, np.nan)
        found[name] = (value, *bounds(draws))
    return found


def _table(columns: Columns, size: int) -> np.ndarray:
    """Tables of counts (..., size, size) from their cells, which are summed over the last axis."""
    cells = [[columns[f"{i} {j}"].sum(axis=-1) for j in range(size)] for i in range(size)]
    return np.moveaxis(np.array(cells, dtype=float), (0, 1), (-2, -1))
