"""Tokens that a method selects in a round (CPPO's perception tokens), one row per response."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

SELECTED = Table(
    "selected",
    ("group_id", pa.string()),
    ("example_id", pa.string()),
    ("sample_index", pa.int32()),
    ("question", pa.string()),
    ("reward", pa.float64()),
    ("tokens", pa.list_(pa.string())),  # text that each token adds; joined, they are the response
    ("entropies", pa.list_(pa.float32())),  # under the training view, in nats
    ("removed_entropies", pa.list_(pa.float32())),  # under the view that removes information
    ("scores", pa.list_(pa.float32())),  # what tokens are ranked by
    ("selected", pa.list_(pa.bool_())),
    ("random", pa.list_(pa.bool_())),  # control: as many of the response's tokens, drawn at random
    group_bytes=2**19,
)
