"""Records of the files that people bring, whatever their container."""

from __future__ import annotations

import csv
import json
import pickle
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.errors import SHOWN, UserError
from perceptune.core.importing import RowError, one_line

UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
"""What values without a Python equivalent raise: text in no valid UTF-8, the year 300,000, an unknown time zone."""

HINT_OF_FOLDERS = "name the file, or the folder that has the `*.parquet` files themselves in it"

Container = Literal["jsonl", "json", "parquet", "tsv", "hf"]


class Files:
    """The file or folder that a dataset block names (`core.importers.importer.Source`)."""

    def __init__(self, path: Path, reads: Container | None = None) -> None:
        self.path = path
        self._reads = reads
        self._read: dict[str, Path] = {}

    @property
    def read(self) -> dict[str, Path]:
        """The files that have been read so far, by their place in the folder that they lie in, in the order of reading."""
        return dict(self._read)

    def check(self) -> None:
        """Raises `UserError` when there is nothing that can be read."""
        _check(self.path, self._reads)

    def records(self, name: str | None = None) -> Iterator[tuple[str, Any]]:
        """Place and record, or the `RowError` of reading it, in order; see the protocol."""
        file = self._file(name)
        _check(file, self._reads)
        self._note(file)
        container = self._reads or _container(file)
        if container in ("jsonl", "json", "tsv"):
            read = {"jsonl": _json_lines, "json": _json_list, "tsv": _tab_separated}[container]
            try:
                yield from read(file)
            except OSError as error:
                raise UserError(f"dataset file `{file}` cannot be read: {error.strerror}") from None
            return
        number = 0
        for batch in _parquet(file) if container == "parquet" else _saved_to_disk(file):
            for row in _plain_rows(batch):
                number += 1
                yield f"row {number}", row

    def names(self, pattern: str) -> list[str]:
        """Files of the folder that match the pattern, sorted; see the protocol."""
        if self.path.is_dir():
            return sorted(file.name for file in self.path.glob(pattern))
        return [self.path.name] if self.path.match(pattern) else []

    def document(self, name: str | None = None) -> Any:
        """The value of a JSON file; see the protocol."""
        file = self._file(name)
        _check(file, None)
        self._note(file)
        try:
            return json.loads(file.read_bytes().decode("utf-8-sig"))
        except OSError as error:
            raise UserError(f"dataset file `{file}` cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"dataset file `{file}` is no valid JSON: {one_line(error)}") from None

    def text(self, name: str) -> str:
        """The content of a text file; see the protocol."""
        file = self._file(name)
        _check(file, None)
        self._note(file)
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UserError(f"dataset file `{file}` cannot be read: {reason}") from None

    def _note(self, file: Path) -> None:
        """Of a folder its tables count."""
        files = [file] if file.is_file() else sorted(f for f in file.iterdir() if f.suffix in (".parquet", ".arrow"))
        above = self.path if self.path.is_dir() else self.path.parent
        self._read |= {one.relative_to(above).as_posix(): one for one in files}

    def _file(self, name: str | None) -> Path:
        if name is None:
            return self.path
        return self.path / name if self.path.is_dir() else self.path.with_name(name)

    def unpickled(self, name: str) -> Any:
        """The plain values of a pickle; see the protocol."""
        file = self._file(name)
        _check(file, None)
        self._note(file)
        try:
            with file.open("rb") as opened:
                return _PlainUnpickler(opened, encoding="latin1").load()
        except OSError as error:
            raise UserError(f"dataset file `{file}` cannot be read: {error.strerror}") from None
        except pickle.UnpicklingError as error:
            raise UserError(f"dataset file `{file}` is no pickle of plain values: {one_line(error)}") from None
        except Exception as error:  # a damaged pickle raises anything
            raise UserError(f"dataset file `{file}` is damaged: {one_line(error)}") from None


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, strings and numbers need no class; whatever asks for one could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which could run code")


def _check(source: Path, reads: Container | None) -> None:
    try:
        mode = source.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        raise UserError(
            f"dataset file `{source}` does not exist", "paths are relative to the working directory"
        ) from None
    except OSError as error:
        raise UserError(f"dataset file `{one_line(source)}` cannot be read: {error.strerror}") from None
    if reads == "hf":
        return
    if stat.S_ISDIR(mode):
        if reads is None:
            return
        raise UserError(f"dataset `{source}` is a folder, expected a file", "`kind: hf` reads folders")
    if not stat.S_ISREG(mode):  # a named pipe would be waited for for ever
        raise UserError(f"dataset `{source}` is no regular file, expected a file")


def _container(file: Path) -> Container:
    """What a file is, by its name; a `.json` file by its first character, since many of them hold a record a line."""
    if file.is_dir():
        return "parquet" if any(file.glob("*.parquet")) else "hf"
    if file.suffix in (".parquet", ".tsv"):
        return "parquet" if file.suffix == ".parquet" else "tsv"
    if file.suffix == ".json":
        with file.open("rb") as opened:
            return "json" if opened.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else "jsonl"
    return "jsonl"


def _parquet(source: Path) -> Iterator[Any]:
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    for file in files:
        try:
            table = pq.read_table(file, partitioning=None)
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a column name in no valid UTF-8
            raise UserError(f"dataset `{file}` is not readable as Parquet: {one_line(error)}") from None
        yield from table.to_batches(max_chunksize=1000)


def _saved_to_disk(source: Path) -> Iterator[Any]:
    import datasets

    expected = "expected a folder written by `datasets.save_to_disk`"
    try:
        loaded = datasets.load_from_disk(str(source))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"dataset `{source}` {_found_in(source)}, {expected}", HINT_OF_FOLDERS) from None
    except Exception as error:  # what is raised depends on which of its files is damaged: JSON, type, key, Arrow errors
        raise UserError(f"dataset `{source}` is damaged, {expected}: {one_line(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(f"dataset `{source}` has several splits {sorted(loaded)}, expected one; name its folder")
    yield from loaded.with_format("arrow").iter(1000)


def _found_in(source: Path) -> str:
    """What there is in place of a folder of rows, in words."""
    if not source.is_dir():
        return "is a file"
    names = sorted(file.name for file in source.iterdir())
    listed = ", ".join(f"`{one_line(name)}`" for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"is a folder with {listed}" if names else "is an empty folder"


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


def _json_list(source: Path) -> Iterator[tuple[str, Any]]:
    try:
        records = json.loads(source.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"dataset file `{source}` is no valid JSON: {one_line(error)}") from None
    for number, record in enumerate(records, 1):
        yield (
            f"record {number}",
            {k: v for k, v in record.items() if v is not None} if isinstance(record, dict) else record,
        )


def _tab_separated(source: Path) -> Iterator[tuple[str, Any]]:
    """Rows of text; a file of VLMEvalKit's holds whole images in base64, which is why fields may be of any length."""
    csv.field_size_limit(sys.maxsize)
    with source.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        try:
            for row in reader:
                yield f"line {reader.line_num}", {k: v for k, v in row.items() if k is not None and v not in (None, "")}
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"dataset file `{source}`, line {reader.line_num}: {one_line(error)}") from None
