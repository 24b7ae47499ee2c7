"""Saliency maps: the attention that patches receive in a DINOv2, one row per example."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

SALIENCY = Table(
    "saliency",
    ("example_id", pa.string()),
    ("grid", pa.list_(pa.int32()), NULL),  # rows and columns of every image's patches
    (
        "saliency",
        pa.list_(pa.list_(pa.float32())),
        NULL,
    ),  # per image, row by row: the attention that a patch receives
    ("reason", pa.string(), NULL),
)
