"""Journal: responses committed while a sampling job runs."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

JOURNAL = Table(
    "journal",
    ("key", pa.string()),  # digest of the complete request
    ("request_id", pa.string()),
    ("example_id", pa.string()),
    ("view", pa.string()),
    ("sample_index", pa.int32()),
    ("text", pa.string()),
    ("token_ids", pa.list_(pa.int32())),
    ("logprobs", pa.list_(pa.float32())),
    ("finish_reason", pa.string()),
    ("prompt_tokens", pa.int32()),
)
