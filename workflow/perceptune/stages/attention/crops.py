"""The salient crop of every example, and its control."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.contracts.config import CropBlock
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.core.views.adaptive_crop import adaptive_crop, inverse_crop


def run(*, attention: Path, crops: Path, config: CropBlock) -> None:
    """Writes `crops`, one row per row of `attention`."""
    rows = [_row(row, config) for row in read_table(attention, ATTENTION).to_pylist()]
    counted = Counter(row["flag"] or ("no map" if row["box"] is None else "crop") for row in rows)
    print(", ".join(f"{count} x {name}" for name, count in sorted(counted.items())))
    write_table(
        crops, CROPS, rows, lineage("attention.crops", config.model_dump(mode="json"), {"attention": attention})
    )


def _row(row: dict[str, Any], config: CropBlock) -> dict[str, Any]:
    empty = dict.fromkeys(("box", "inverse", "ratio", "contrast", "flag"))
    if row["attention"] is None:
        return {"example_id": row["example_id"], **empty, "reason": row["reason"]}
    attention = np.array(row["attention"], dtype=float).reshape(row["grid"])
    size = (row["size"][0], row["size"][1])
    crop = adaptive_crop(attention, size, config.base, config.ratios, config.neighbours, config.variant)
    inverse = inverse_crop(attention, size, config.base, crop, config.variant)
    return {
        "example_id": row["example_id"],
        "box": list(crop.box),
        "inverse": list(inverse),
        "ratio": crop.ratio,
        "contrast": crop.contrast,
        "flag": crop.flag,
        "reason": None,
    }
