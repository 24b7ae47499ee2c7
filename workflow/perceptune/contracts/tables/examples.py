"""Examples: one row per question, with its images and ground truth."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import NULL, Table

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""One image in the layout of the Hugging Face `datasets.Image` feature; `bytes` is null if `path`
is set."""

TRUTH_COLUMNS = {"answer": "target", "box": "box"}
"""The columns of ground truths, by their key in a user's rows."""

EXAMPLES = Table(
    "examples",
    ("example_id", pa.string()),
    ("task", pa.string()),
    ("question", pa.string()),
    ("images", pa.list_(IMAGE)),
    ("image_sha256", pa.list_(pa.string())),
    ("image_sizes", pa.list_(pa.list_(pa.int32()))),  # (width, height) in pixels, after EXIF rotation
    ("image_hashes", pa.list_(pa.binary())),  # see `core.data.perceptual_hash`; empty for images that show too little
    ("target", pa.string(), NULL),
    ("box", pa.list_(pa.float64()), NULL),  # x1, y1, x2, y2 in pixels of the first image
    ("split", pa.string()),
    ("source", pa.string(), NULL),  # remaining columns of the source row, JSON
    ("reason", pa.string(), NULL),  # why the row is quarantined; null for valid rows
    group_bytes=2**21,
)
