"""CLIP scores: match of the question with the image, its salient crop, and the control crop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceptune.contracts.config import ClipBlock
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.clips import CLIPS
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import Rows, table_writer
from perceptune.core.data.images import open_image
from perceptune.core.views.view import clipped
from perceptune.engines.vision.clip import Clip
from perceptune.stages.data.example_images import IllustratedExamples

AT_ONCE = 32


def run(*, examples: Path, crops: Path, clips: Path, config: ClipBlock, weights: str, halvings: int = 0) -> None:
    """Writes `clips`, the cosines of every row of `crops`.

    `weights` is the digest of the model's files. Each of the `halvings` halves the batch size,
    without changing the result.
    """
    cut = Rows(crops, CROPS, ["example_id", "box", "inverse", "reason"])
    known = IllustratedExamples(examples)
    clip = Clip(config)
    step = max(AT_ONCE >> halvings, 1)
    parameters = {"clip": config.model_dump(mode="json"), "weights": weights}
    with table_writer(clips, CLIPS) as table, Progress("CLIP scores", len(cut), "examples") as progress:
        for start in range(0, len(cut), step):
            part = cut.take(range(start, min(start + step, len(cut))))
            found = iter(_scores(clip, [row for row in part if row["box"] is not None], known, config.prompt))
            table.write([next(found) if row["box"] is not None else _without(row) for row in part])
            progress.advance(len(part))
        table.lineage = lineage("attention.clip_scores", parameters, {"examples": examples, "crops": crops})


def _scores(
    clip: Clip,
    rows: list[dict[str, Any]],
    known: IllustratedExamples,
    prompt: str,
) -> list[dict[str, Any]]:
    if not rows:
        return []
    texts, pictures = [], []
    for row in rows:
        example_id = row["example_id"]
        image = open_image(known.files(example_id)[0])
        texts.append(prompt.replace("{question}", known.row(example_id, ["question"])["question"]))
        pictures.append([image, *(image.crop(clipped(tuple(row[name]), image.size)) for name in ("box", "inverse"))])
    return [
        {"example_id": row["example_id"], "image": image, "crop": crop, "inverse": inverse, "reason": None}
        for row, (image, crop, inverse) in zip(rows, clip.cosines(texts, pictures), strict=True)
    ]


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {"example_id": row["example_id"], "image": None, "crop": None, "inverse": None, "reason": row["reason"]}
