"""Bootstrap intervals of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.metrics import Columns, Metric

CHUNK = 4_000_000
"""Numbers drawn at once while bootstrapping: bounds the memory."""
LEVEL = 0.95


def interval(metric: Metric, columns: Columns, *, resamples: int, seed: int) -> tuple[float, float, float]:
    """(value, low, high): the metric of n examples and its 95 % percentile-bootstrap interval over examples."""
    draws = _draws([(metric, columns)], resamples, seed)
    low, high = bounds(draws[0])
    return float(metric(columns)), low, high


def paired_gain(
    metric: Metric, columns: Columns, base: Columns, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(gain, low, high): difference to the base policy, both resampled with the same examples."""
    return paired_sum([(1, metric, columns), (-1, metric, base)], resamples=resamples, seed=seed)


def paired_sum(
    terms: Sequence[tuple[float, Metric, Columns]], *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(value, low, high): the sum of weighted metrics of the same n examples, all resampled together.

    Columns have n examples on their last axis, in the same order. A gain is (1, policy), (-1, base); what an image adds to it
    takes away the same without the image.
    """
    draws = _draws([(metric, columns) for _, metric, columns in terms], resamples, seed)
    weights = [weight for weight, _, _ in terms]
    low, high = bounds(sum((w * d for w, d in zip(weights, draws, strict=True)), np.zeros(resamples)))
    return float(sum(weight * metric(columns) for weight, metric, columns in terms)), low, high


def resampled_totals(tables: Sequence[Columns], *, resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Each table's columns (..., units) summed over the same bootstrap samples of the units: shape (..., resamples, 1).

    For metrics that look at sums only. All metrics share the samples, and a product of matrices makes them: with many metrics
    of many units this is some hundred times faster than drawing for each of them.
    """
    count = next(iter(tables[0].values())).shape[-1]
    generator = np.random.default_rng(seed)
    found: list[dict[str, list[np.ndarray]]] = [{name: [] for name in table} for table in tables]
    step = max(1, CHUNK // max(count, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = generator.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(rows.ravel(), minlength=size * count).reshape(size, count).astype(float)
        for totals, table in zip(found, tables, strict=True):
            for name, column in table.items():
                totals[name].append(np.moveaxis(times @ np.moveaxis(column, -1, 0), 0, -1))
    return [{name: np.concatenate(parts, axis=-1)[..., None] for name, parts in totals.items()} for totals in found]


def _draws(measured: list[tuple[Metric, Columns]], resamples: int, seed: int) -> list[np.ndarray]:
    """For each (metric, columns) its values on the same `resamples` bootstrap samples of the n examples."""
    count = next(iter(measured[0][1].values())).shape[-1]
    generator = np.random.default_rng(seed)
    values: list[list[np.ndarray]] = [[] for _ in measured]
    step = max(1, CHUNK // max(count, 1))
    for start in range(0, resamples, step):
        rows = generator.integers(0, count, size=(min(step, resamples - start), count))
        for found, (metric, columns) in zip(values, measured, strict=True):
            found.append(metric(_Resampled(columns, rows)))
    return [np.concatenate(found) for found in values]


class _Resampled(dict[str, np.ndarray]):
    """Columns (n,) seen through row numbers (resamples, n); only those that a metric asks for are drawn."""

    def __init__(self, columns: Columns, rows: np.ndarray) -> None:
        super().__init__()
        self._columns, self._rows = columns, rows

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = self._columns[name][..., self._rows]
        return self[name]


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values."""
    known = draws[~np.isnan(draws)]  # NaN: a resample without any example that the metric is about
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known.size else (np.nan, np.nan)
    return float(low), float(high)


def run_spread(values: np.ndarray) -> float:
    """Standard deviation (n - 1) of the N runs' means: `values` (n, N) holds the i-th answers of all questions in column i.

    It says how much one run of sampled answers differs from the next, not how sure the mean is: questions stay the same.
    """
    return float(values.mean(axis=0).std(ddof=1))


def macro_mean(values: Sequence[float]) -> float:
    """The overall of several benchmarks: their mean, each with the same weight whatever its number of questions."""
    return sum(values) / len(values)
