"""Imports a dataset: every row checked, every image opened and identified by content."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import lineage
from perceptune.contracts.progress import Progress
from perceptune.contracts.quarantine import check_ceiling
from perceptune.contracts.tables import write_table
from perceptune.core.images import image_facts
from perceptune.core.importing import RowError, checked_row, pixel_box


def run(*, config: FileDataset, examples: Path) -> None:
    """Writes the `examples` table of a dataset.

    Raises `UserError` with all mistakes, first ones spelled out, when more than `max_failed` of the rows are unusable; up to
    that they are written with their reason.
    """
    source = Path(config.path)
    if not source.exists():
        raise UserError(f"dataset file `{source}` does not exist", "paths are relative to the working directory")
    folder = Path(config.images) if config.images else source if source.is_dir() else source.parent
    rows = list(_rows(source, config))
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
    write_table(examples, "examples", table, lineage("examples", config.model_dump(mode="json"), inputs))


def _rows(source: Path, config: FileDataset) -> Iterator[tuple[str, Any]]:
    """(place in the file, row or the `RowError` of reading it), in file order."""
    if config.kind != "hf" and source.is_dir():
        raise UserError(f"dataset `{source}` is a folder, expected a file", "`kind: hf` reads folders")
    if config.kind == "jsonl":
        yield from _json_lines(source)
        return
    if config.kind == "parquet":
        try:
            table = pq.read_table(source)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"dataset `{source}` is not readable as Parquet: {error}") from None
        batches: Any = table.to_batches(max_chunksize=1000)
    else:
        import datasets

        try:
            loaded = datasets.load_from_disk(str(source))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"dataset `{source}`: expected a folder written by `datasets.save_to_disk`") from None
        if isinstance(loaded, datasets.DatasetDict):
            raise UserError(f"dataset `{source}` has several splits {sorted(loaded)}, expected one; name its folder")
        batches = loaded.with_format("arrow").iter(1000)
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", {k: v for k, v in row.items() if v is not None}


def _json_lines(source: Path) -> Iterator[tuple[str, Any]]:
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                yield f"line {number}", RowError("not UTF-8 text")
            except json.JSONDecodeError as error:
                yield f"line {number}", RowError(f"no valid JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield f"line {number}", RowError("no valid JSON: nested too deeply")
            except ValueError as error:  # a number of too many digits
                yield f"line {number}", RowError(f"no valid JSON: {error}")


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
        raise RowError(f"image `{_short(ascii(name))}` is no file name") from None
    except RuntimeError:
        raise RowError(f"image `{_short(name)}`: a symbolic link that leads to itself") from None
    except OSError as error:
        raise RowError(f"image `{_short(name)}`: the file cannot be read: {error.strerror}") from None
    if not inside:
        raise RowError(
            f"image `{_short(name)}` leaves the image folder `{folder}`, expected one inside; key `images` says which folder"
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
        raise RowError(f"image `{_short(name)}`: {error}, looked in `{folder}`") from None


def _short(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:60]}...{name[-40:]}"


def _mark_duplicates(table: list[dict[str, Any]], places: list[str]) -> None:
    """Later rows with an id that was there before fail."""
    first: dict[str, str] = {}
    for place, row in zip(places, table, strict=True):
        if row["reason"] is None and first.setdefault(row["example_id"], place) != place:
            original = first[row["example_id"]]
            row.update(_empty(place, f"`id` {row['example_id']!r} was used in {original} already, expected unique ids"))


def _empty(place: str, reason: str) -> dict[str, Any]:
    return {
        "example_id": place.replace(" ", "-"), "task": "", "question": "", "images": [], "image_sha256": [],
        "image_sizes": [], "target": None, "box": None, "split": "", "source": None, "reason": reason,
    }  # fmt: skip
