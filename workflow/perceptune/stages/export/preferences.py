"""Exports the preferences of an experiment in another trainer's format, with their images."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from perceptune.contracts.config import ExportBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.lineage import lineage, write_lineage
from perceptune.contracts.tables.io import read_batches, read_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.data.images import image_bytes, open_image
from perceptune.core.data.row_checks import MARK
from perceptune.core.exporters.exporter import Exporter, Ranked, pairs_of
from perceptune.core.views.apply import shown
from perceptune.runtime.folders import appearing_folder
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.sampling.recipes import recipe_of

TEMPLATE = "export_readme.md.jinja"
KEPT_COLUMNS = ("example_id", "messages", "responses", "pairs", "kept")
AT_ONCE = 64
"""Groups in memory."""
NO_ORDER = "all its answers have the same reward"


def run(
    *,
    name: str,
    experiment: str,
    preferences: Path,
    examples: Path,
    folder: Path,
    config: ExportBlock,
    view: str,
    views: Mapping[str, ViewBlock],
) -> None:
    """Writes `folder`: data, images (each once, named by content), `README.md`, `lineage.json`.

    Images are rendered as in the training view: the imported file if every reader decodes the same
    pixels from it, otherwise a PNG file. Rows that cannot be written are counted in the README.
    Raises `UserError` if nothing is left, and for an image that has changed since the import.
    """
    exporter = load("exporter", config.format)
    shutil.rmtree(folder, ignore_errors=True)
    with appearing_folder(folder) as made:
        groups = sum(read_table(preferences, PREFERENCES, ["kept"])["kept"].to_pylist())
        known = IllustratedExamples(examples)
        pictures = _Pictures(made, known, view, views, exporter.inside)
        left_out: Counter[str] = Counter()
        with Progress("exporting", groups, "groups") as progress:

            def records() -> Iterator[dict[str, Any]]:
                for group in _kept(preferences):
                    yield from _records(group, known.row(group["example_id"]), pictures, config, left_out)
                    progress.advance()

            rows = _write(made, exporter, records(), name)
        if not rows:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.items())
            raise UserError(f"no group of `{preferences}` can be exported as `{config.format}`: {reasons}")
        ops = sorted(pictures.ops)
        plugins = [module_of("exporter", config.format), *(module_of("view", op) for op in ops)]
        parameters = {"export": config.model_dump(mode="json"), "experiment": experiment, "view": view}
        parameters |= {"views": {key: block.model_dump(mode="json") for key, block in views.items()}}
        record = lineage("export.preferences", parameters, {"preferences": preferences, "examples": examples}, plugins)
        write_lineage(made, record)
        text = _readme(name, experiment, folder, exporter, config, view, groups, rows, left_out, record)
        write_text(made / "README.md", text)
        print(f"{rows} rows of {groups} groups; left out: {dict(left_out)}")


def _kept(preferences: Path) -> Iterator[dict[str, Any]]:
    for part in read_batches(preferences, PREFERENCES, KEPT_COLUMNS, AT_ONCE):
        yield from (group for group in part.to_pylist() if group["kept"])


def _records(
    group: Mapping[str, Any],
    example: Mapping[str, Any],
    pictures: _Pictures,
    config: ExportBlock,
    left_out: Counter[str],
) -> Iterator[dict[str, Any]]:
    exporter = load("exporter", config.format)
    for one in _ranked(group, example, pictures.view):
        if any(
            MARK in text for text in (one.question, *(text for text, _ in one.answers))
        ):  # readers would take it for an image
            left_out[f"a text contains `{MARK}`"] += 1
            continue
        parts = [one] if exporter.rows == "lists" else list(pairs_of(one, config.pairs))
        if not parts:
            left_out[NO_ORDER] += 1
            continue
        images = pictures.of(example)
        for part in parts:
            yield exporter.record(replace(part, images=images))


def _ranked(group: Mapping[str, Any], example: Mapping[str, Any], view: str) -> Iterator[Ranked]:
    """The ranked list of a group, best first, or a list of two answers per kept pair."""
    texts = [item["text"] for message in group["messages"] for item in message["content"] if item["type"] == "text"]
    responses = group["responses"]
    lists: dict[str, list[tuple[str, float | None]]] = {}
    if group["pairs"]:
        for pair in group["pairs"]:
            if pair["kept"]:
                lists[f"/{pair['kind']}"] = [(responses[pair[role]]["text"], None) for role in ("chosen", "rejected")]
    else:
        ordered = sorted(responses, key=lambda response: -response["reward"])
        lists[""] = [(response["text"], response["reward"]) for response in ordered]
    # in another view, boxes and answers that contain positions may be wrong
    moved = view != "original"
    unplaced = moved and example["task"] == "grounding"
    for suffix, answers in lists.items():
        yield Ranked(
            id=f"{example['example_id']}{suffix}",
            question="".join(texts),
            images=(),
            answers=answers,
            task="open" if unplaced else example["task"],
            split=example["split"],
            target=None if unplaced else example["target"],
            box=None if moved else example["box"],
        )


class _Pictures:
    """The images of an export: files without duplicates, or structs."""

    def __init__(
        self, folder: Path, examples: IllustratedExamples, view: str, blocks: Mapping[str, ViewBlock], inside: bool
    ) -> None:
        self._folder, self._examples, self.view, self._blocks, self._inside = folder, examples, view, blocks, inside
        self.ops: set[str] = set()
        """The view types that were used."""

    def of(self, example: Mapping[str, Any]) -> list[Any]:
        """The images of an example, in order, as a record stores them."""
        recipe = recipe_of(self.view, self._blocks, example["image_sha256"])
        self.ops.add(recipe.op)
        opened = [(image_bytes(image), open_image(image)) for image in self._examples.files(example["example_id"])]
        if recipe.op == "original":
            return [self._kept(data, picture) for data, picture in opened]
        return [self._kept(None, picture) for picture in shown(recipe, [picture for _, picture in opened])]

    def _kept(self, data: bytes | None, picture: Image.Image) -> Any:
        kind = None if data is None else _plainly(data, picture)
        if kind is None or data is None:
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
            kind, data = "png", encoded.getvalue()
        name = f"images/{hashlib.sha256(data).hexdigest()[:20]}.{kind}"
        if self._inside:
            return {"bytes": data, "path": Path(name).name}
        file = self._folder / name
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        return name


def _plainly(data: bytes, picture: Image.Image) -> str | None:
    """The type of an image file that every reader decodes as `picture`.

    None for others: rotated, transparent, 16-bit.
    """
    with Image.open(io.BytesIO(data)) as image:
        kind = (image.format or "").lower()
        if image.mode not in ("RGB", "L") or "transparency" in image.info or image.getexif().get(0x0112, 1) != 1:
            return None
        same = image.size == picture.size and image.convert("RGB").tobytes() == picture.tobytes()
    return {"jpeg": "jpg"}.get(kind, kind) if same and kind in ("jpeg", "png", "webp", "bmp", "gif") else None


def _write(folder: Path, exporter: Exporter, records: Iterator[dict[str, Any]], name: str) -> int:
    """Writes the records one after another, and what belongs beside them; returns their number."""
    file = folder / exporter.file
    write = {".parquet": _write_parquet, ".json": _write_json}.get(file.suffix, _write_lines)
    rows = write(file, exporter, records)
    for other, value in exporter.beside(name).items():
        write_text(folder / other, json.dumps(value, indent=2) + "\n")
    return rows


def _write_parquet(file: Path, exporter: Exporter, records: Iterator[dict[str, Any]]) -> int:
    from datasets import Dataset  # only here: it is slow to import

    assert exporter.features is not None
    features, rows = exporter.features(), 0
    with pq.ParquetWriter(file, features.arrow_schema) as writer:
        while part := list(islice(records, AT_ONCE)):
            writer.write_table(Dataset.from_list(part, features=features).with_format("arrow")[:])
            rows += len(part)
    return rows


def _write_json(file: Path, exporter: Exporter, records: Iterator[dict[str, Any]]) -> int:
    """As `json.dump` would write the list."""
    rows = 0
    with file.open("w", encoding="utf-8") as opened:
        for rows, record in enumerate(records, 1):
            text = json.dumps(record, indent=1, ensure_ascii=False).replace("\n", "\n ")
            opened.write(f"{'[' if rows == 1 else ','}\n {text}")
        opened.write("\n]\n")
    return rows


def _write_lines(file: Path, exporter: Exporter, records: Iterator[dict[str, Any]]) -> int:
    rows = 0
    with file.open("w", encoding="utf-8") as opened:
        for record in records:
            opened.write(json.dumps(record, ensure_ascii=False) + "\n")
            rows += 1
    return rows


def _readme(
    name: str,
    experiment: str,
    folder: Path,
    exporter: Exporter,
    config: ExportBlock,
    view: str,
    groups: int,
    rows: int,
    left_out: Mapping[str, int],
    record: Mapping[str, Any],
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        name=name,
        experiment=experiment,
        exporter=exporter,
        pairs=config.pairs,
        view=view,
        groups=groups,
        rows=rows,
        left_out=left_out,
        usage=exporter.usage.replace("{folder}", folder.as_posix()).replace("{name}", name),
        record=record,
        versions=", ".join(f"{package} {version}" for package, version in record["versions"].items()),
    )
