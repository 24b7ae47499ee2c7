"""Requests to a policy, one row per prompt."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import MESSAGES, NULL, Table

CONTRAST = pa.struct([("recipe", pa.string()), ("strength", pa.float64()), ("plausibility", pa.float64())])
"""Contrastive decoding: recipe of the amateur's view (JSON), lambda, and plausibility threshold."""

REQUESTS = Table(
    "requests",
    ("request_id", pa.string()),
    ("example_id", pa.string()),
    ("dataset", pa.string()),
    ("benchmark", pa.string(), NULL),  # null for training samples
    ("condition", pa.string()),  # `greedy`, `sampled`, `prompt-2`, `round-3`, `focus_chosen`
    ("view", pa.string()),
    ("recipe", pa.string()),  # the view for this example, JSON of `core.views.Recipe`
    ("contrast", CONTRAST, NULL),
    ("messages", MESSAGES),
    ("n", pa.int32()),
    ("temperature", pa.float64()),
    ("top_p", pa.float64()),
    ("top_k", pa.int32()),  # 0: off
    ("max_tokens", pa.int32()),
    ("seed", pa.int64()),  # sample i has its own seed, derived from this one and i
)
