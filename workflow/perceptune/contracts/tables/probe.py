"""What a probe found out about a model of family `auto`, one row per check."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.table import NULL, Table

PROBE = Table(
    "probe",
    ("check", pa.string()),  # `shared prefix`, `separate sequences` or `engine`
    ("tokens", pa.int64()),  # compared tokens
    ("mean", pa.float64(), NULL),  # difference of their log-probs in nats; null if there are none
    ("max", pa.float64(), NULL),
    ("problem", pa.string(), NULL),  # why they do not agree; null if they do
)


def needs_separate_sequences(probe: Path | None) -> bool:
    """Whether a model is trained with a row per answer; False without a probe."""
    if probe is None:
        return False
    rows = read_table(probe, PROBE).to_pylist()
    return any(row["check"] == "shared prefix" and row["problem"] is not None for row in rows)
