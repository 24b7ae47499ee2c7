"""The report's section on images and questions that training data share with benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.leakage import LEAKAGE

COUNTED = ("images", "same_images", "similar_images", "questions", "same_questions", "similar_questions")


def leakage_section(tables: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row per training data and benchmark; `tables` are by name of the training data.

    Raises `UserError` for a broken table.
    """
    return [
        {"training": training, "benchmark": row["benchmark"], "counts": [f"{row[name]:,}" for name in COUNTED]}
        for training, path in tables.items()
        for row in read_table(path, LEAKAGE).to_pylist()
    ]
