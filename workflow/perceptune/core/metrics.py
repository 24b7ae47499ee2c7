"""Metrics of answers: functions of columns, and how the report shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Columns = Mapping[str, np.ndarray]
Metric = Callable[[Columns], np.ndarray]
"""Takes columns of shape (..., n), gives values of shape (...): so that resamples are computed together."""


@dataclass(frozen=True)
class DeclaredMetric:
    """A metric and how the report shows it, under the name that a reward or a benchmark gives it."""

    metric: Metric
    label: str
    """As the report names it."""
    percent: bool = True
    """Shown as a percentage."""
    lower_is_better: bool = False


def mean(column: str) -> Metric:
    """The mean of a column."""
    return lambda columns: columns[column].mean(axis=-1)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`; 0 where nothing is below."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0)
