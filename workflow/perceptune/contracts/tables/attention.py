"""Attention maps of a policy, one row per example."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

ATTENTION = Table(
    "attention",
    ("example_id", pa.string()),
    ("size", pa.list_(pa.int32())),  # width and height of the image in pixels
    ("grid", pa.list_(pa.int32()), NULL),  # rows and columns of the map
    ("attention", pa.list_(pa.float32()), NULL),  # attention map, row by row
    ("afr", pa.float64(), NULL),  # attention focus ratio of the map; null without a ground-truth box
    ("layer_afr", pa.list_(pa.float64()), NULL),  # attention focus ratio per layer
    ("global_afr", pa.float64(), NULL),  # attention focus ratio of the sum over all layers
    ("image_share", pa.list_(pa.float64()), NULL),  # per layer: share of attention on image tokens
    ("reason", pa.string(), NULL),
)
