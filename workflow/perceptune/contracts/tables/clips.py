"""CLIP scores of image, crop and inverse crop, one row per example."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

CLIPS = Table(
    "clips",
    ("example_id", pa.string()),
    ("image", pa.float64(), NULL),  # cosine similarity of question and image
    ("crop", pa.float64(), NULL),  # of question and crop
    ("inverse", pa.float64(), NULL),  # of question and inverse crop
    ("reason", pa.string(), NULL),
)
