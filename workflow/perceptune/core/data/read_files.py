"""Records of the files that people bring, whatever their container."""

from __future__ import annotations

import csv
import fnmatch
import json
import pickle
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.errors import SHOWN, UserError
from perceptune.core.data.row_checks import RowError, one_line

UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
"""What values without a Python equivalent raise: text in no valid UTF-8, the year 300,000, an unknown time zone."""

HINT_OF_FOLDERS = "name the file, or the folder that has the `*.parquet` files themselves in it"
HINT_OF_PARQUET = "`kind: parquet` reads folders of Parquet files"
HINT_OF_KINDS = "`kind: parquet` reads folders of Parquet files, `kind: hf` those that `datasets.save_to_disk` wrote"

Container = Literal["jsonl", "json", "parquet", "tsv", "hf"]
SUFFIXES = (".json", ".jsonl", ".parquet", ".tsv")


class Files:
    """The file or folder that a dataset block names (`core.importers.importer.Source`)."""

    def __init__(self, path: Path, reads: Container | None = None, split: str | None = None) -> None:
        self.path = path
        self.split = split
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
        with _reading(file):
            container = self._reads or _container(file)
            if container in ("jsonl", "json", "tsv"):
                yield from {"jsonl": _json_lines, "json": _json_list, "tsv": _tab_separated}[container](file)
                return
        number = 0
        for batch in _parquet(file) if container == "parquet" else _saved_to_disk(file):
            for row in _plain_rows(batch):
                number += 1
                yield f"row {number}", row

    def names(self, pattern: str) -> list[str]:
        """Files of the folder that match the pattern, sorted; see the protocol."""
        if self.path.is_dir():
            return sorted(fnmatch.filter(_listed(self.path), pattern))
        return [self.path.name] if self.path.match(pattern) else []

    def document(self, name: str | None = None) -> Any:
        """The value of a JSON file; see the protocol."""
        file = self._file(name)
        _check(file, None)
        self._note(file)
        with _reading(file):
            return _json_value(file)

    def text(self, name: str) -> str:
        """The content of a text file; see the protocol."""
        file = self._file(name)
        _check(file, None)
        self._note(file)
        try:
            with _reading(file):
                return file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"dataset file `{file}` cannot be read: not UTF-8 text") from None

    def _note(self, file: Path) -> None:
        """Of a folder its tables count."""
        files = [file] if file.is_file() else [file / name for name in fnmatch.filter(sorted(_listed(file)), "*.arrow")]
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
            with _reading(file), file.open("rb") as opened:
                return _PlainUnpickler(opened, encoding="latin1").load()
        except UserError:
            raise
        except pickle.UnpicklingError as error:
            raise UserError(f"dataset file `{file}` is no pickle of plain values: {one_line(error)}") from None
        except Exception as error:  # a damaged pickle raises anything
            raise UserError(f"dataset file `{file}` is damaged: {one_line(error)}") from None


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, strings and numbers need no class; whatever asks for one could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which could run code")


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What the operating system refuses is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"dataset file `{one_line(file)}` cannot be read: {error.strerror}") from None


def _listed(folder: Path) -> list[str]:
    """The names in a folder; `UserError` where it cannot be listed."""
    try:
        return [file.name for file in folder.iterdir()]
    except OSError as error:
        raise UserError(f"dataset folder `{folder}` cannot be listed: {error.strerror}") from None


def _check(source: Path, reads: Container | None) -> None:
    try:
        mode = source.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        raise UserError(
            f"dataset file `{source}` does not exist", "paths are relative to the working directory"
        ) from None
    except OSError as error:
        raise UserError(f"dataset file `{one_line(source)}` cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        names = _listed(source)
        if reads in (None, "hf") or (reads == "parquet" and fnmatch.filter(names, "*.parquet")):
            return
        if reads == "parquet":
            raise UserError(f"dataset `{source}` {_found_in(source)}, expected a file or a folder of `*.parquet` files")
        raise UserError(f"dataset `{source}` is a folder, expected a file", HINT_OF_KINDS)
    if reads != "hf" and not stat.S_ISREG(mode):  # a named pipe would be waited for for ever
        raise UserError(f"dataset `{source}` is no regular file, expected a file")


def _container(file: Path) -> Container:
    """What a file is, by its name; a `.json` file by its first character, since many of them hold a record a line."""
    if file.is_dir():
        return "hf"
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"dataset file `{file}`: expected a name that ends in {', '.join(SUFFIXES)}")
    if suffix in (".parquet", ".tsv"):
        return "parquet" if suffix == ".parquet" else "tsv"
    if suffix == ".json":
        with file.open("rb") as opened:
            return "json" if opened.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else "jsonl"
    return "jsonl"


def _parquet(file: Path) -> Iterator[Any]:
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
        hint = HINT_OF_PARQUET if source.is_dir() and fnmatch.filter(_listed(source), "*.parquet") else HINT_OF_FOLDERS
        raise UserError(f"dataset `{source}` {_found_in(source)}, {expected}", hint) from None
    except Exception as error:  # what is raised depends on which of its files is damaged: JSON, type, key, Arrow errors
        raise UserError(f"dataset `{source}` is damaged, {expected}: {one_line(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(f"dataset `{source}` has several splits {sorted(loaded)}, expected one; name its folder")
    yield from loaded.with_format("arrow").iter(1000)


def _found_in(source: Path) -> str:
    """What there is in place of a folder of rows, in words."""
    if not source.is_dir():
        return "is a file"
    names = sorted(_listed(source))
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
    first = True
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            record = _json_line(line)
            if first and isinstance(record, list | RowError) and (whole := _one_value(source)) is not None:
                yield from _numbered(whole)
                return
            first = False
            yield f"line {number}", record


def _json_line(line: bytes) -> Any:
    """The value of a line, or what is wrong with it."""
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return RowError("not UTF-8 text")
    except json.JSONDecodeError as error:
        return RowError(f"no valid JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RowError("no valid JSON: nested too deeply")
    except ValueError as error:  # a number of too many digits
        return RowError(f"no valid JSON: {error}")


def _one_value(source: Path) -> list[Any] | None:
    """The records of a file that is one JSON value, maybe over many lines: a list's, or the only one; None for another file."""
    try:
        value = json.loads(source.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else [value]


def _json_value(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"dataset file `{file}` is no valid JSON: {one_line(error)}") from None


def _json_list(source: Path) -> Iterator[tuple[str, Any]]:
    yield from _numbered(_json_value(source))


def _numbered(records: list[Any]) -> Iterator[tuple[str, Any]]:
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
