"""Metrics as functions of columns, and their presentation in the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Columns = Mapping[str, np.ndarray]
Metric = Callable[[Columns], np.ndarray]
"""Maps columns of shape (..., n) to values of shape (...), so that resamples are computed together."""


@dataclass(frozen=True)
class DeclaredMetric:
    """A metric and its presentation in the report."""

    metric: Metric
    label: str
    """Name in the report."""
    percent: bool = True
    """Whether the report shows a percentage."""
    lower_is_better: bool = False


def mean(column: str) -> Metric:
    """The mean of a column."""
    return lambda columns: columns[column].mean(axis=-1)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, elementwise; 0 where `below` is not positive."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0)


def known_ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, elementwise; NaN where `below` is not positive."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)
