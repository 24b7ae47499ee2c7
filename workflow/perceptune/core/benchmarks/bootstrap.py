"""Bootstrap intervals of metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from perceptune.core.rewards.metrics import Columns, Metric

BLOCK = 2**18
"""Row numbers drawn at once: they and the values they select stay in a processor's cache."""
CHUNK = 4_000_000
"""Counts in one matrix product; bounds the memory."""
LEVEL = 0.95
ROUNDING = 1e-12
"""Sums below this share of their terms are rounding errors."""


def paired_sum(
    terms: Sequence[tuple[float, Metric, Columns]], *, resamples: int, seed: int, of_sums: bool = False
) -> tuple[float, float, float]:
    """(value, low, high): a weighted sum of metrics on the same n examples, resampled jointly.

    All columns have the n examples on their last axis, in the same order. A gain is (1, policy),
    (-1, base); the part of it that needs the image subtracts the same gain without the image. `of_sums`
    as in `resampled`.
    """
    measured = [(metric, columns) for _, metric, columns in terms]
    draws = resampled(measured, resamples=resamples, seed=seed, of_sums=of_sums)
    weights = [weight for weight, _, _ in terms]
    low, high = bounds(weighted_sum(weights, draws))
    return float(weighted_sum(weights, [np.asarray(metric(columns)) for metric, columns in measured])), low, high


def weighted_sum(weights: Sequence[float], values: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of weight times value, elementwise; exactly 0 where rounding errors alone keep it from 0.

    Whether an interval includes 0 must not depend on them: 0.8 - 0.5 - 0.3 is not 0 in floating point.
    """
    terms = np.stack([weight * value for weight, value in zip(weights, values, strict=True)])
    total = terms.sum(axis=0)
    return np.where(np.abs(total) <= ROUNDING * np.abs(terms).sum(axis=0), 0.0, total)


def resampled(
    measured: Sequence[tuple[Metric, Columns]], *, resamples: int, seed: int, of_sums: bool = False
) -> list[np.ndarray]:
    """The values of each (metric, columns) on the same `resamples` bootstrap samples of n examples;
    NaN for a single example, which says nothing about the variation between examples.

    `of_sums`: the metrics use only sums, see `resampled_totals`.
    """
    count = _count(measured[0][1])
    if count == 1:
        return [np.full(resamples, np.nan) for _ in measured]
    tables = {id(columns): columns for _, columns in measured}  # several metrics use the same one
    if of_sums:
        sums = resampled_totals(list(tables.values()), resamples=resamples, seed=seed)
        totals = dict(zip(tables, sums, strict=True))
        return [np.asarray(metric(totals[id(columns)])) for metric, columns in measured]
    values: list[list[np.ndarray]] = [[] for _ in measured]
    for rows in _samples(count, resamples, seed):
        drawn = {name: _Resampled(columns, rows) for name, columns in tables.items()}
        for found, (metric, columns) in zip(values, measured, strict=True):
            found.append(metric(drawn[id(columns)]))
    return [np.concatenate(found) for found in values]


def resampled_totals(tables: Sequence[Columns], *, resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Sums each table's columns (..., units) over shared bootstrap samples of the units: shape
    (..., resamples, 1).

    For metrics that use only sums. All metrics share the samples, and matrix products sum them: the
    number of times that each sample has each unit, by the different columns of all tables.
    """
    count = _count(tables[0])
    units, places = _different([row for table in tables for column in table.values() for row in _rows(column)])
    times = np.empty((min(resamples, max(1, CHUNK // count)), count))
    parts, filled = [], 0
    for sample in chain.from_iterable(_samples(count, resamples, seed)):
        times[filled] = np.bincount(sample, minlength=count)
        filled += 1
        if filled == len(times):
            parts.append(times @ units)
            filled = 0
    totals = np.concatenate([*parts, times[:filled] @ units]).T
    place = iter(places)
    return [
        {
            name: totals[[next(place) for _ in _rows(column)]].reshape(*column.shape[:-1], resamples, 1)
            for name, column in table.items()
        }
        for table in tables
    ]


def _rows(column: np.ndarray) -> np.ndarray:
    return column.reshape(-1, column.shape[-1])


def _different(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """The different rows as columns of a matrix, and the place of each row in it. Most benchmarks
    have columns that are the same in all runs, such as the number of questions.
    """
    places: dict[bytes, int] = {}
    kept: list[np.ndarray] = []
    found = []
    for row in rows:
        place = places.setdefault(hashlib.sha256(row.astype(float).tobytes()).digest(), len(places))
        if place == len(kept):
            kept.append(row)
        found.append(place)
    return np.stack(kept, axis=1), found


def _count(columns: Columns) -> int:
    """The number of examples or units."""
    return int(next(iter(columns.values())).shape[-1])


def _samples(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap samples of n examples, block by block: row numbers of shape (block, n)."""
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK // count)
    for start in range(0, resamples, step):
        yield generator.integers(0, count, size=(min(step, resamples - start), count))


class _Resampled(dict[str, np.ndarray]):
    """Columns (n,) indexed by row numbers (resamples, n), computed only when a metric uses them."""

    def __init__(self, columns: Columns, rows: np.ndarray) -> None:
        super().__init__()
        self._columns, self._rows = columns, rows

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = self._columns[name].take(self._rows, axis=-1, mode="clip")  # without a check of the numbers
        return self[name]


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values."""
    known = draws[~np.isnan(draws)]  # NaN: a resample without examples that the metric covers
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known.size else (np.nan, np.nan)
    return float(low), float(high)


def run_spread(values: np.ndarray) -> float:
    """Standard deviation (ddof 1) of the means of N runs; column i of `values` (n, N) is run i.

    It measures the variation between runs of sampled answers on fixed questions, not the
    uncertainty of the mean.
    """
    return float(values.mean(axis=0).std(ddof=1))


def macro_mean(values: Sequence[float]) -> float:
    """The unweighted mean over benchmarks, whatever their numbers of questions."""
    return sum(values) / len(values)
