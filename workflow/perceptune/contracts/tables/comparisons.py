"""Comparisons: one row per comparison, part and metric."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

COMPARISONS = Table(
    "comparisons",
    ("comparison", pa.string()),
    ("source", pa.string()),  # the benchmark, or the experiment whose pairs are compared
    ("one", pa.string()),  # a policy, or `chosen`
    ("other", pa.string()),
    ("part", pa.string()),  # a task, a kind of pair, or `all`
    ("view", pa.string(), NULL),
    ("condition", pa.string(), NULL),
    ("k", pa.int32(), NULL),
    ("metric", pa.string()),
    ("count", pa.float64(), NULL),  # numerator of a share; half of the ties count as wins
    ("of", pa.float64(), NULL),
    ("value", pa.float64(), NULL),
    ("ci_low", pa.float64(), NULL),
    ("ci_high", pa.float64(), NULL),
    ("other_value", pa.float64(), NULL),  # metrics of a benchmark: those of the other policy
    ("difference", pa.float64(), NULL),  # paired
    ("difference_ci_low", pa.float64(), NULL),
    ("difference_ci_high", pa.float64(), NULL),
    ("n", pa.int32()),  # verdicts, or answers
    ("n_failed", pa.int32()),  # verdicts that cannot be read, or answers that could not be parsed
    ("judge", pa.string(), NULL),
    ("reason", pa.string(), NULL),  # why there is no value
)
