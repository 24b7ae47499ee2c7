"""Stored log-probs: per group, term and view, those of every response token."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

TERMS = Table(
    "terms",
    ("group_id", pa.string()),
    ("term", pa.string()),  # `reference` (the base model) or `old` (the policy that answered)
    ("view", pa.string()),
    ("logprobs", pa.list_(pa.list_(pa.float32()))),  # [response][token], in the order of `preferences.responses`
    ("entropies", pa.list_(pa.list_(pa.float32())), NULL),  # of the whole distribution, in nats; of rounds only
)
