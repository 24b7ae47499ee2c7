"""A judge's verdicts on pairs of answers, one row per pair and order."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

COMPARED = Table(
    "compared",
    ("item", pa.string()),  # the pair
    ("example_id", pa.string()),
    ("kind", pa.string()),  # `answers` of two policies; `focus`, `robust` or `list` in preferences
    ("one_first", pa.bool_()),  # whether the first policy's or the chosen answer was shown as A
    ("dropped", pa.bool_()),  # whether the experiment's filter drops the pair
    ("key", pa.string()),  # digest of the complete request; empty if the judge was not asked
    ("text", pa.string(), NULL),  # the judge's response
    ("model", pa.string(), NULL),  # model name reported by the endpoint
    ("outcome", pa.string(), NULL),  # `win`, `tie` or `lose` of the first answer; null: unreadable
    ("grade", pa.int32(), NULL),
    ("other_grade", pa.int32(), NULL),
    ("reason", pa.string(), NULL),  # why there is no verdict, or why it cannot be read
)
