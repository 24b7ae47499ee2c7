"""Imports a dataset: every row checked, every image opened and identified by content."""

from __future__ import annotations

import json
import os
import stat
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
from perceptune.core.importing import RowError, checked_row, one_line, pixel_box, shown

UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
"""What values without a Python equivalent raise: text in no valid UTF-8, the year 300,000, an unknown time zone."""


def run(*, config: FileDataset, examples: Path) -> None:
    """Writes the `examples` table of a dataset.

    Raises `UserError` with all mistakes, first ones spelled out, when more than `max_failed` of the rows are unusable; up to
    that they are written with their reason.
    """
    source = Path(config.path)
    _check_source(source, config.kind)
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
    if config.kind == "jsonl":
        try:
            yield from _json_lines(source)
        except OSError as error:
            raise UserError(f"dataset file `{source}` cannot be read: {error.strerror}") from None
        return
    number = 0
    for batch in _parquet(source) if config.kind == "parquet" else _saved_to_disk(source):
        for row in _plain_rows(batch):
            number += 1
            yield f"row {number}", row


def _check_source(source: Path, kind: str) -> None:
    try:
        mode = source.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        raise UserError(
            f"dataset file `{source}` does not exist", "paths are relative to the working directory"
        ) from None
    except OSError as error:
        raise UserError(f"dataset file `{one_line(source)}` cannot be read: {error.strerror}") from None
    if kind == "hf":
        return
    if stat.S_ISDIR(mode):
        raise UserError(f"dataset `{source}` is a folder, expected a file", "`kind: hf` reads folders")
    if not stat.S_ISREG(mode):  # a named pipe would be waited for for ever
        raise UserError(f"dataset `{source}` is no regular file, expected a file")


def _parquet(source: Path) -> Iterator[Any]:
    try:
        table = pq.read_table(source, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a column name in no valid UTF-8
        raise UserError(f"dataset `{source}` is not readable as Parquet: {one_line(error)}") from None
    yield from table.to_batches(max_chunksize=1000)


def _saved_to_disk(source: Path) -> Iterator[Any]:
    import datasets

    expected = "expected a folder written by `datasets.save_to_disk`"
    try:
        loaded = datasets.load_from_disk(str(source))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"dataset `{source}`: {expected}") from None
    except Exception as error:  # what is raised depends on which of its files is damaged: JSON, type, key, Arrow errors
        raise UserError(f"dataset `{source}` is damaged, {expected}: {one_line(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(f"dataset `{source}` has several splits {sorted(loaded)}, expected one; name its folder")
    yield from loaded.with_format("arrow").iter(1000)


def _plain_rows(batch: Any) -> list[Any]:
    """The rows of an Arrow batch without their nulls; a `RowError` for one with a value that Python cannot hold."""
    try:
        rows = batch.to_pylist()
    except UNREADABLE:
        rows = [_plain_row(batch, index) for index in range(batch.num_rows)]
    return [row if isinstance(row, RowError) else {k: v for k, v in row.items() if v is not None} for row in rows]


def _plain_row(batch: Any, index: int) -> dict[str, Any] | RowError:
    row = {}
    for name in batch.schema.names:
        try:
            row[name] = batch.column(name)[index].as_py()
        except UNREADABLE as error:
            return RowError(f"column `{one_line(name)}` cannot be read: {one_line(error)}")
    return row


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
