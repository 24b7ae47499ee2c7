"""Stored log-probs of every response token, one row per group, term and view."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

TERMS = Table(
    "terms",
    ("group_id", pa.string()),
    ("term", pa.string()),  # `reference` (base model) or `old` (policy that sampled the responses)
    ("view", pa.string()),
    ("logprobs", pa.list_(pa.list_(pa.float32()))),  # [response][token], in the order of `preferences.responses`
    ("entropies", pa.list_(pa.list_(pa.float32())), NULL),  # of the full distribution, in nats; only in rounds
    group_bytes=2**19,
)
