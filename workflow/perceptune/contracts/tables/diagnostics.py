"""Diagnostics of one training: means over pairs with 95 % bootstrap intervals."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

DIAGNOSTICS = Table(
    "diagnostics",
    ("experiment", pa.string()),
    ("point", pa.string()),  # `start` or `end` of training
    ("kind", pa.string()),  # `focus`, `robust`, or `extremes` of a ranked list
    ("view", pa.string()),  # under which the method compares the two answers
    ("weights", pa.string()),  # `all`, `language` or `vision`
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("ci_low", pa.float64()),  # NaN for a single pair
    ("ci_high", pa.float64()),
    ("n", pa.int32()),  # pairs
)
