"""Saliency maps: which patches of an image attract attention, independent of the policy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.contracts.config import SaliencyBlock
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import table_writer
from perceptune.contracts.tables.saliency import SALIENCY
from perceptune.engines.vision.dinov2 import Dino
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.sampling.requests import chosen_examples

AT_ONCE = 16
WRITTEN = 256
"""Rows written at once."""
FLOAT = np.dtype(np.float32)


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
    patches = dino.grid[0] * dino.grid[1]
    reasons: dict[str, str] = {}
    step = max(AT_ONCE >> halvings, 1)
    parameters = {"saliency": config.model_dump(mode="json"), "weights": weights}
    saliency.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=saliency.parent) as scratch, table_writer(saliency, SALIENCY) as table:
        with Progress("saliency", len(images), "images") as progress:
            for start in range(0, len(images), step):
                part = dict(islice(images.items(), start, start + step))
                for one in _maps(dino, known, part, reasons):
                    scratch.write((np.zeros(patches) if one is None else one).astype(FLOAT).tobytes())
                progress.advance(len(part))
        places = {sha: place for place, sha in enumerate(images)}

        def stored(sha: str) -> np.ndarray:
            scratch.seek(places[sha] * patches * FLOAT.itemsize)
            return np.frombuffer(scratch.read(patches * FLOAT.itemsize), FLOAT)

        for start in range(0, len(chosen), WRITTEN):
            table.write([_row(row, dino.grid, stored, reasons) for row in chosen[start : start + WRITTEN]])
        table.lineage = lineage("attention.saliency", parameters, {"examples": examples})


def _maps(
    dino: Dino, examples: IllustratedExamples, images: Mapping[str, tuple[str, int]], reasons: dict[str, str]
) -> list[np.ndarray | None]:
    """The map of each image (digest to its place); None for those that it adds to `reasons`."""
    opened = {}
    for sha, (example_id, place) in images.items():
        try:
            opened[sha] = examples.image(example_id, place)
        except ValueError as error:
            reasons[sha] = str(error)
    maps = dict(zip(opened, dino.received(list(opened.values())), strict=True)) if opened else {}
    return [maps.get(sha) for sha in images]


def _row(
    row: Mapping[str, Any], grid: tuple[int, int], stored: Callable[[str], np.ndarray], reasons: Mapping[str, str]
) -> dict[str, Any]:
    reason = next((reasons[sha] for sha in row["image_sha256"] if sha in reasons), None)
    own = None if reason else [stored(sha) for sha in row["image_sha256"]]
    return {"example_id": row["example_id"], "grid": None if reason else list(grid), "saliency": own, "reason": reason}
