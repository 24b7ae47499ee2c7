"""The salient crop of every example, and its control."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.contracts.config import CropBlock
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.core.views.adaptive_crop import adaptive_crop, inverse_crop

SMALLEST_SHARE = 0.01
"""Crops that cover less of their images than this are reported."""


def run(*, attention: Path, crops: Path, config: CropBlock) -> None:
    """Writes `crops`, one row per row of `attention`."""
    maps = read_table(attention, ATTENTION).to_pylist()
    rows, sizes = [_row(row, config) for row in maps], [row["size"] for row in maps]
    counted = Counter(row["flag"] or ("no map" if row["box"] is None else "crop") for row in rows)
    print(", ".join(f"{count} x {name}" for name, count in sorted(counted.items())))
    if warning := _tiny(rows, sizes, config):
        tell(f"warning: {warning}")
    write_table(
        crops, CROPS, rows, lineage("attention.crops", config.model_dump(mode="json"), {"attention": attention})
    )


def _tiny(rows: list[dict[str, Any]], sizes: list[list[int]], config: CropBlock) -> str | None:
    """A message if the median crop covers hardly anything of its image: `base` is in pixels."""
    shares = [
        (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
        for row, size in zip(rows, sizes, strict=True)
        if (box := row["box"]) is not None
    ]
    if not shares or (share := float(np.median(shares))) >= SMALLEST_SHARE:
        return None
    width, height = (int(np.median([size[axis] for size in sizes if size])) for axis in (0, 1))
    return (
        f"the median crop covers {share:.2%} of its image; images have about {width} x {height} pixels, the smallest"
        f" crop {config.base[0]} x {config.base[1]} (key `base` of the crop)"
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
