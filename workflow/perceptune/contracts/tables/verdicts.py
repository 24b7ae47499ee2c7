"""Verdicts of a judge, one row per answer."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

VERDICTS = Table(
    "verdicts",
    ("request_id", pa.string()),
    ("sample_index", pa.int32()),
    ("example_id", pa.string()),
    ("view", pa.string()),
    ("condition", pa.string()),
    ("key", pa.string()),  # digest of the complete request: judge, messages, parameters
    ("text", pa.string(), NULL),  # the judge's response
    ("model", pa.string(), NULL),  # model name reported by the endpoint
    ("reason", pa.string(), NULL),  # why there is no verdict
)
