"""Crops: the salient box of every example and its inverse."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

CROPS = Table(
    "crops",
    ("example_id", pa.string()),
    ("box", pa.list_(pa.float64()), NULL),  # x1, y1, x2, y2 in pixels of the first image
    ("inverse", pa.list_(pa.float64()), NULL),  # control: a box of the same size where attention is lowest
    ("ratio", pa.float64(), NULL),
    ("contrast", pa.float64(), NULL),
    ("flag", pa.string(), NULL),  # `whole image` or `empty map`
    ("reason", pa.string(), NULL),  # why there is no crop
)
