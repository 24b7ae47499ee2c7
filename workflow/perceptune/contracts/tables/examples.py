"""Examples: one row per question, with its images and ground truth."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""One image as the Hugging Face `datasets.Image` feature stores it; `bytes` is null when a file is referred to."""

EXAMPLES = Table(
    "examples",
    ("example_id", pa.string()),
    ("task", pa.string()),
    ("question", pa.string()),
    ("images", pa.list_(IMAGE)),
    ("image_sha256", pa.list_(pa.string())),
    ("image_sizes", pa.list_(pa.list_(pa.int32()))),  # (width, height) in pixels, after EXIF rotation
    ("target", pa.string(), NULL),
    ("box", pa.list_(pa.float64()), NULL),  # x1, y1, x2, y2 in pixels of the first image
    ("split", pa.string()),
    ("source", pa.string(), NULL),  # the user's other columns, JSON
    ("reason", pa.string(), NULL),  # why the row is quarantined; null for a good row
)
