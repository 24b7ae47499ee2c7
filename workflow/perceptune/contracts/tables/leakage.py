"""Leakage: what the training data of an experiment share with each benchmark."""

from __future__ import annotations

import pyarrow as pa

from perceptune.contracts.tables.table import Table

SHARED = pa.struct([("kind", pa.string()), ("training_id", pa.string()), ("benchmark_id", pa.string())])
"""The ids of two examples. `kind` is `same question`, `same image`, `similar question` or `similar image`."""

LEAKAGE = Table(
    "leakage",
    ("benchmark", pa.string()),
    ("images", pa.int64()),  # distinct images of the benchmark
    ("same_images", pa.int64()),  # of these, with the same file in the training data
    ("similar_images", pa.int64()),  # of the others, with a near duplicate in the training data
    ("questions", pa.int64()),  # distinct questions of the benchmark, with their images
    ("same_questions", pa.int64()),  # of these, also in the training data about the same images
    ("similar_questions", pa.int64()),  # of the others, also in the training data about the same or similar images
    ("examples", pa.list_(SHARED)),  # the first of them
)
