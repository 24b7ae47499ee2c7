"""Training curves: one row per step and metric."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

TRAINING = Table(
    "training",
    ("experiment", pa.string()),
    ("step", pa.int32()),
    ("metric", pa.string()),
    ("value", pa.float64()),
)
