"""Metrics: long and tidy, one row per policy, benchmark, condition and metric."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

METRICS = Table(
    "metrics",
    ("policy", pa.string()),
    ("benchmark", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("view", pa.string()),
    ("condition", pa.string()),  # `greedy`, `mean_of_n`, `best_of_n`, `prompt`, `attention` or `density`
    ("k", pa.int32()),  # n of `mean_of_n` and `best_of_n`; index of the prompt; quarter of `density`, from 1
    ("metric", pa.string()),
    ("value", pa.float64(), NULL),
    ("ci_low", pa.float64(), NULL),
    ("ci_high", pa.float64(), NULL),
    ("base_value", pa.float64(), NULL),
    ("gain", pa.float64(), NULL),  # paired difference from the base policy
    ("gain_ci_low", pa.float64(), NULL),
    ("gain_ci_high", pa.float64(), NULL),
    ("n", pa.int32()),
    ("n_failed", pa.int32()),  # answers that could not be parsed
    ("judge", pa.string(), NULL),  # judge and its model, if the value depends on a judge
    ("reason", pa.string(), NULL),  # why there is no value, such as a missing resource
)
