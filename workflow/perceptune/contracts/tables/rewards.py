"""Rewards: one row per response, with the parsed answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
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


def component_lists(components: Mapping[str, np.ndarray], count: int) -> pa.Array:
    """The column `components` of `count` rows, from one value per row and component."""
    names = pa.array(components, pa.string()).take(pa.array(np.tile(np.arange(len(components)), count)))
    values = np.column_stack([np.zeros((count, 0)), *components.values()]).ravel()
    pairs = pa.StructArray.from_arrays([names, pa.array(values, pa.float64())], fields=list(NAMED_VALUE))
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * len(components), pa.int32()), pairs)
