"""CLIP scores of image, crop and control, one row per example."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

CLIPS = Table(
    "clips",
    ("example_id", pa.string()),
    ("image", pa.float64(), NULL),  # cosine of question and image
    ("crop", pa.float64(), NULL),
    ("inverse", pa.float64(), NULL),
    ("reason", pa.string(), NULL),
)
