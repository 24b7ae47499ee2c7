"""Saliency maps: attention received by image patches in a DINOv2, one row per example."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

SALIENCY = Table(
    "saliency",
    ("example_id", pa.string()),
    ("grid", pa.list_(pa.int32()), NULL),  # rows and columns of patches per image
    ("saliency", pa.list_(pa.list_(pa.float32())), NULL),  # per image: attention received by each patch, row by row
    ("reason", pa.string(), NULL),
    group_bytes=2**19,
)
