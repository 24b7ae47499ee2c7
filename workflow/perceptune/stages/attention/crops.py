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
from perceptune.contracts.tables.io import read_batches, table_writer
from perceptune.core.views.adaptive_crop import adaptive_crop, inverse_crop

SMALLEST_SHARE = 0.01
"""Crops that cover less of their images than this are reported."""
AT_ONCE = 256
"""Maps in memory."""


def run(*, attention: Path, crops: Path, config: CropBlock) -> None:
    """Writes `crops`, one row per row of `attention`."""
    counted: Counter[str] = Counter()
    shares: list[float] = []
    sizes: list[list[int]] = []
    with table_writer(crops, CROPS) as table:
        for maps in read_batches(attention, ATTENTION, ("example_id", "size", "grid", "attention", "reason"), AT_ONCE):
            rows = [_row(row, config) for row in maps.to_pylist()]
            table.write(rows)
            for row, size in zip(rows, maps["size"].to_pylist(), strict=True):
                counted[row["flag"] or ("no map" if row["box"] is None else "crop")] += 1
                sizes.append(size)
                if row["box"] is not None:
                    shares.append(_share(row["box"], size))
        print(", ".join(f"{count} x {name}" for name, count in sorted(counted.items())))
        if warning := _tiny(shares, sizes, config):
            tell(f"warning: {warning}")
        table.lineage = lineage("attention.crops", config.model_dump(mode="json"), {"attention": attention})


def _share(box: list[float], size: list[int]) -> float:
    """Share of the image that a box covers."""
    return (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])


def _tiny(shares: list[float], sizes: list[list[int]], config: CropBlock) -> str | None:
    """A message if the median crop covers hardly anything of its image: `base` is in pixels."""
    if not shares or (share := float(np.median(shares))) >= SMALLEST_SHARE:
        return None
    width, height = (int(np.median([size[axis] for size in sizes])) for axis in (0, 1))
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
