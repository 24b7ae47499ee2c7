"""A selection of answers as JSON lines in perceptune's own format, with the answers best first."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from perceptune.commands.inspect.contents import Answered
from perceptune.commands.inspect.library import Library
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.stages.data.scans import scan

COLUMNS = ("task", "question", "target", "box", "split")
"""Of examples."""


def exported(library: Library, tables: Sequence[Answered], chosen: pl.DataFrame) -> Iterator[str]:
    """One line per example: its question, images and ground truth, and in `answers_given` the chosen
    answers that have a text and a reward, each text once with its highest reward, best first.

    Image files are named by their absolute path; images inside of tables become data URIs. Examples
    that are not in the tables any more are left out.
    """
    answers = ranked_answers([scan(one.path, REWARDS) for one in tables], chosen)
    known = {i: {b: library.dataset(one, b) for b in answers["benchmark"].unique()} for i, one in enumerate(tables)}
    merged: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in answers.iter_rows(named=True):
        dataset = known[row["table"]].get(row["benchmark"])
        if dataset is not None:
            merged.setdefault((dataset, row["example_id"]), []).append({k: row[k] for k in ("text", "reward")})
    several = len({dataset for dataset, _ in merged}) > 1
    for (dataset, example_id), given in merged.items():
        example = library.example(dataset, example_id, COLUMNS)
        if example is not None:
            name = f"{dataset}/{example_id}" if several else example_id
            images = [_named(image) for image in library.stored_images(dataset, example_id)]
            yield json.dumps(line(name, example, images, given), ensure_ascii=False) + "\n"


def ranked_answers(frames: Sequence[pl.LazyFrame], chosen: pl.DataFrame) -> pl.DataFrame:
    """table, benchmark, example_id, text and reward of the chosen rows (`table`, `row`) with text and
    reward, in their order."""
    columns = ("benchmark", "example_id", "text", "reward")
    parts = [
        frame.select(columns)
        .with_row_index("row")
        .join(chosen.lazy().with_row_index("place").filter(pl.col("table") == i), on="row")
        .filter(pl.col("text").is_not_null() & pl.col("reward").is_finite())
        for i, frame in enumerate(frames)
    ]
    return pl.concat(parts).collect().sort("place").select("table", *columns)


def line(
    name: str, example: Mapping[str, Any], images: Sequence[str], given: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row in perceptune's own format."""
    best: dict[str, float] = {}
    for answer in given:
        best[answer["text"]] = max(answer["reward"], best.get(answer["text"], answer["reward"]))
    ranked = sorted(best.items(), key=lambda one: -one[1])
    row = {"id": name, "images": list(images), **{key: example[key] for key in ("question", "task", "split")}}
    row |= {"answer": example["target"]} if example["target"] is not None else {}
    row |= {"box": list(example["box"])} if example["box"] is not None else {}
    return {**row, "answers_given": [{"text": text, "reward": reward} for text, reward in ranked]}


def _named(image: Mapping[str, Any]) -> str:
    if image["bytes"] is None:
        return str(Path(image["path"]).absolute())
    with Image.open(io.BytesIO(image["bytes"])) as opened:
        kind = Image.MIME.get(opened.format or "", "image/png")
    return f"data:{kind};base64,{base64.b64encode(image['bytes']).decode()}"
