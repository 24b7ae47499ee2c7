"""Selected tokens with a judge's labels, one row per answer that the judge was asked about."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

OF_ANSWER = ("precision", "recall", "f1", "kappa")

LABELLED_TOKENS = Table(
    "labelled_tokens",
    ("group_id", pa.string()),
    ("example_id", pa.string()),
    ("sample_index", pa.int32()),
    ("key", pa.string()),  # digest of the complete request
    ("text", pa.string(), NULL),  # the judge's response
    ("model", pa.string(), NULL),  # model name reported by the endpoint
    ("tokens", pa.list_(pa.string())),
    ("labels", pa.list_(pa.bool_()), NULL),  # whether a token is in a phrase that the judge lists; null: unreadable
    ("selected", pa.list_(pa.bool_())),
    ("random", pa.list_(pa.bool_())),  # control: as many of the answer's tokens, drawn at random
    *((name, pa.float64(), NULL) for name in OF_ANSWER),  # of the selection; null where not defined
    *((f"random_{name}", pa.float64(), NULL) for name in OF_ANSWER),
    ("reason", pa.string(), NULL),  # why the verdict cannot be read
)
