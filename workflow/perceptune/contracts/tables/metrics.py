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
    (
        "condition",
        pa.string(),
    ),  # `greedy`, `mean_of_n`, `best_of_n`, each with its n in `k`; `prompt`, its number in `k`
    ("k", pa.int32()),
    ("metric", pa.string()),
    ("value", pa.float64(), NULL),
    ("ci_low", pa.float64(), NULL),
    ("ci_high", pa.float64(), NULL),
    ("base_value", pa.float64(), NULL),
    ("gain", pa.float64(), NULL),  # paired difference to the base policy
    ("gain_ci_low", pa.float64(), NULL),
    ("gain_ci_high", pa.float64(), NULL),
    ("n", pa.int32()),
    ("n_failed", pa.int32()),  # answers that could not be parsed
    ("judge", pa.string(), NULL),  # its name and the model that answered, where a judge has a say in the value
    ("reason", pa.string(), NULL),  # why it could not be measured, such as a resource that has to be brought
)
