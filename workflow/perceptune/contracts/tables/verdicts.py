"""Verdicts: what a judge says of an answer."""

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
    ("key", pa.string()),  # digest of all that the judge was asked: its name, messages, parameters
    ("text", pa.string(), NULL),  # what it said
    ("model", pa.string(), NULL),  # that said it, as the endpoint names it
    ("reason", pa.string(), NULL),  # why it said nothing
)
