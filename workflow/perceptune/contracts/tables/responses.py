"""Responses: one row per sampled answer."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

RESPONSES = Table(
    "responses",
    ("request_id", pa.string()),
    ("example_id", pa.string()),
    ("view", pa.string()),
    ("sample_index", pa.int32()),
    ("text", pa.string(), NULL),
    ("token_ids", pa.list_(pa.int32()), NULL),  # including the end-of-sequence token if sampled
    ("logprobs", pa.list_(pa.float32()), NULL),  # of the sampled tokens, before temperature and top-p
    ("finish_reason", pa.string(), NULL),
    ("prompt_tokens", pa.int32(), NULL),
    ("reason", pa.string(), NULL),  # why there is no response
    ("key", pa.string(), NULL),  # digest of the complete request, to recognise it later
)
