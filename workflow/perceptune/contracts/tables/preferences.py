"""Preferences: ranked lists, pairs or rollout groups, one row per group."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import MESSAGES, NAMED_VALUE, NULL, Table

RANKED_RESPONSE = pa.struct(
    [
        ("sample_index", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("reward", pa.float64()),  # 0 in pairs
        ("role", pa.string()),  # null in ranked lists, `focus_chosen` and so on in pairs
    ]
)

SHOWN = pa.struct(
    [
        ("view", pa.string()),
        ("recipe", pa.string()),  # JSON of `core.views.Recipe`
        ("messages", MESSAGES),
        ("sha256", pa.string()),  # of the pixels
        ("strength", pa.float64()),  # effective strength, in the view's unit
    ]
)

PAIR = pa.struct(
    [
        ("kind", pa.string()),  # `focus` or `robust`
        ("chosen", pa.int32()),  # index in `responses`
        ("rejected", pa.int32()),
        ("ppl_chosen", pa.float64()),
        ("ppl_rejected", pa.float64()),
        ("margin", pa.float64()),  # difference of mean log-probs per token
        ("ips", pa.float64()),  # difference of summed log-probs given the original image
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why the pair was dropped
    ]
)

PREFERENCES = Table(
    "preferences",
    ("group_id", pa.string()),
    ("example_id", pa.string()),
    ("request_id", pa.string()),
    ("task", pa.string()),
    ("view", pa.string()),
    ("messages", MESSAGES),
    ("responses", pa.list_(RANKED_RESPONSE)),  # lists: best first; rounds: as drawn
    ("views", pa.list_(SHOWN)),  # views specific to this example
    ("pairs", pa.list_(PAIR)),
    ("numbers", pa.list_(NAMED_VALUE)),  # of the group, such as CLIP scores
    ("kept", pa.bool_()),
    ("reason", pa.string(), NULL),  # why the group was dropped
    group_bytes=2**19,
)
