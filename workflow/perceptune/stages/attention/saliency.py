"""Saliency maps: which patches of an image attract attention, independent of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.contracts.config import SaliencyBlock
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.saliency import SALIENCY
from perceptune.engines.vision.dinov2 import Dino
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.sampling.requests import chosen_examples

AT_ONCE = 16


def run(
    *, dataset: str, examples: Path, saliency: Path, config: SaliencyBlock, weights: str, halvings: int = 0
) -> None:
    """Writes `saliency`, one row per example that the block selects.

    `weights` is the digest of the model's files. Each of the `halvings` halves the batch size,
    without changing the result.
    """
    chosen = chosen_examples(dataset, examples, config.split, config.tasks, config.limit)
    dino = Dino(config)
    # several questions may share an image
    images: dict[str, tuple[str, int]] = {}
    for row in chosen:
        for place, sha in enumerate(row["image_sha256"]):
            images.setdefault(sha, (row["example_id"], place))
    known = IllustratedExamples(examples)
    maps: dict[str, np.ndarray | str] = {}
    step = max(AT_ONCE >> halvings, 1)
    with Progress("saliency", len(images), "images") as progress:
        for start in range(0, len(images), step):
            part = dict(list(images.items())[start : start + step])
            maps |= _maps(dino, known, part)
            progress.advance(len(part))
    rows = [_row(row, dino.grid, maps) for row in chosen]
    parameters = {"saliency": config.model_dump(mode="json"), "weights": weights}
    write_table(saliency, SALIENCY, rows, lineage("attention.saliency", parameters, {"examples": examples}))


def _maps(
    dino: Dino, examples: IllustratedExamples, images: Mapping[str, tuple[str, int]]
) -> dict[str, np.ndarray | str]:
    """Image digest to its map, or to the reason why there is none."""
    opened, maps = {}, dict[str, np.ndarray | str]()
    for sha, (example_id, place) in images.items():
        try:
            opened[sha] = examples.image(example_id, place)
        except ValueError as error:
            maps[sha] = str(error)
    if opened:
        maps |= zip(opened, dino.received(list(opened.values())), strict=True)
    return maps


def _row(row: Mapping[str, Any], grid: tuple[int, int], maps: Mapping[str, np.ndarray | str]) -> dict[str, Any]:
    own = [maps[sha] for sha in row["image_sha256"]]
    reason = next((one for one in own if isinstance(one, str)), None)
    shown = {"grid": None, "saliency": None} if reason else {"grid": list(grid), "saliency": own}
    return {"example_id": row["example_id"], **shown, "reason": reason}
