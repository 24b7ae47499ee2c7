"""Imports a dataset: every row checked, every image opened and identified by content."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import lineage, plugin
from perceptune.contracts.progress import Progress
from perceptune.contracts.quarantine import check_ceiling
from perceptune.contracts.tables import write_table
from perceptune.core.images import image_facts
from perceptune.core.importers import IMPORTERS
from perceptune.core.importers.importer import Importer
from perceptune.core.importing import RowError, checked_row, one_line, pixel_box, shown
from perceptune.stages.reading import Files


def run(*, config: FileDataset, examples: Path) -> None:
    """Writes the `examples` table of a dataset.

    Raises `UserError` with all mistakes, first ones spelled out, when more than `max_failed` of the rows are unusable; up to
    that they are written with their reason.
    """
    source = Path(config.path)
    importer = IMPORTERS[config.kind]
    files = Files(source, importer.reads)
    files.check()
    config = config.model_copy(update=_declared(config, importer))
    folder = Path(config.images) if config.images else source if source.is_dir() else source.parent
    rows = list(importer.rows(files))
    if not rows:
        raise UserError(f"dataset file `{source}` has no rows")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        table = []
        with Progress("checking examples", len(rows), "rows") as progress:
            for checked in pool.map(lambda numbered: _checked(numbered[0], numbered[1], config, folder), rows):
                table.append(checked)
                progress.advance()
    _mark_duplicates(table, [place for place, _ in rows])
    failed = [
        f"{source.name}, {place}: {row['reason']}" for (place, _), row in zip(rows, table, strict=True) if row["reason"]
    ]
    check_ceiling(failed, len(rows), "rows cannot be used", config.max_failed, config.max_failed_rows)
    for line in failed:
        print(f"left out: {line}")
    inputs = {} if source.is_dir() else {"data": source}
    plugins = [plugin("importer", importer.name)]
    write_table(examples, "examples", table, lineage("examples", config.model_dump(mode="json"), inputs, plugins))


def _declared(config: FileDataset, importer: Importer) -> dict[str, Any]:
    """What the format says where the block says nothing."""
    return {
        "coordinates": config.coordinates or importer.coordinates or "pixels",
        "task": config.task or importer.task,
    }


def _checked(place: str, row: Any, config: FileDataset, folder: Path) -> dict[str, Any]:
    """The row of the `examples` table; a failed one has empty columns and its reason."""
    try:
        if isinstance(row, RowError):
            raise row
        checked = checked_row(row, config)
        checked["images"] = [_located(image, folder) for image in checked["images"]]
        facts = [_facts(image, folder) for image in checked["images"]]
        if checked["box"] is not None:
            checked["box"] = pixel_box(checked["box"], config, facts[0][1])
    except RowError as error:
        return _empty(place, str(error))
    except RecursionError:  # JSON that could just be read need not be writable
        return _empty(place, "nested too deeply")
    example_id = checked.pop("example_id") or place.replace(" ", "-")
    digests = {"image_sha256": [f[0] for f in facts], "image_sizes": [list(f[1]) for f in facts]}
    return {"example_id": example_id, **checked, **digests, "reason": None}


def _located(image: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The image with its path relative to the working directory where it lies inside; it may not lie outside of `folder`."""
    if image["bytes"] is not None:
        return {"bytes": bytes(image["bytes"]), "path": image["path"]}
    name = image["path"]
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (ValueError, UnicodeError):  # a null character, half a character
        raise RowError(f"image {shown(name)} is no file name") from None
    except RuntimeError:
        raise RowError(f"image `{one_line(name)}`: a symbolic link that leads to itself") from None
    except OSError as error:
        raise RowError(f"image `{one_line(name)}`: the file cannot be read: {error.strerror}") from None
    if not inside:
        raise RowError(
            f"image `{one_line(name)}` leaves the image folder `{folder}`, expected one inside; key `images` says which folder"
        )
    try:
        path = path.absolute().relative_to(Path.cwd())
    except ValueError:
        path = path.absolute()
    return {"bytes": None, "path": str(path)}


def _facts(image: dict[str, Any], folder: Path) -> tuple[str, tuple[int, int]]:
    try:
        return image_facts(image)
    except ValueError as error:
        path = Path(image["path"] or "(in the table)")
        name = path.name
        if path.absolute().is_relative_to(folder.absolute()):
            name = path.absolute().relative_to(folder.absolute()).as_posix()
        raise RowError(f"image `{one_line(name)}`: {error}, looked in `{folder}`") from None


def _mark_duplicates(table: list[dict[str, Any]], places: list[str]) -> None:
    """Later rows with an id that was there before fail."""
    first: dict[str, str] = {}
    for place, row in zip(places, table, strict=True):
        if row["reason"] is None and first.setdefault(row["example_id"], place) != place:
            original = first[row["example_id"]]
            identity = shown(row["example_id"])
            row.update(_empty(place, f"`id` {identity} was used in {original} already, expected unique ids"))


def _empty(place: str, reason: str) -> dict[str, Any]:
    return {
        "example_id": place.replace(" ", "-"), "task": "", "question": "", "images": [], "image_sha256": [],
        "image_sizes": [], "target": None, "box": None, "split": "", "source": None, "reason": reason,
    }  # fmt: skip
