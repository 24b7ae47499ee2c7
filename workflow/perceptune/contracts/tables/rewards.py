"""Rewards: one row per response, with the parsed answer."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NAMED_VALUE, NULL, Table

REWARDS = Table(
    "rewards",
    ("request_id", pa.string()),
    ("example_id", pa.string()),
    ("task", pa.string()),
    ("benchmark", pa.string(), NULL),
    ("condition", pa.string()),
    ("view", pa.string()),
    ("sample_index", pa.int32()),
    ("text", pa.string(), NULL),
    (
        "answer",
        pa.string(),
        NULL,
    ),  # `text` without reasoning, as rewards, metrics and judges read it; null if it has none
    ("target", pa.string(), NULL),
    ("reward", pa.float64(), NULL),  # in [0, 1]; 0 for an unparsable answer, null without a response or if not finite
    ("parsed", pa.string(), NULL),  # the parsed answer, JSON
    ("components", pa.list_(NAMED_VALUE)),
    ("reason", pa.string(), NULL),  # why an answer could not be parsed
)
