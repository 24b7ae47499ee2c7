"""Read the records of user files in any supported container format."""

from __future__ import annotations

import fnmatch
import os
import pickle
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from perceptune.contracts.config import Boxes, Coordinates
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.core.data.class_labels import labelled_features
from perceptune.core.data.csv_files import csv_columns, csv_rows, is_utf_16, tsv_rows
from perceptune.core.data.json_files import json_lines, json_list, json_members, json_value, starts_with_list
from perceptune.core.data.parquet_files import Batches, parquet_rows, placed_rows
from perceptune.core.data.row_checks import one_line
from perceptune.core.data.signatures import EXCEL, START, mistaken, mistaken_for_json

HINT_OF_FOLDERS = "give the path of the file, or of the folder that directly contains the `*.parquet` files"
HINT_OF_PARQUET = "`kind: parquet` reads folders of Parquet files"
HINT_OF_KINDS = "`kind: parquet` reads folders of Parquet files, `kind: hf` folders of `datasets.save_to_disk`"
HINT_OF_EXCEL = "save the sheet as `CSV UTF-8` and give the path of that file"

Container = Literal["jsonl", "json", "parquet", "csv", "tsv", "hf"]
SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".tsv")


READERS = {"jsonl": json_lines, "json": json_list, "csv": csv_rows, "tsv": tsv_rows}


class Files:
    """The file or folder that a dataset block names (`core.importers.importer.Source`)."""

    def __init__(
        self,
        path: Path,
        reads: Container | None = None,
        split: str | None = None,
        *,
        parameters: Any = None,
        boxes: Boxes | None = None,
        coordinates: Coordinates | None = None,
        images: bool = True,
    ) -> None:
        """`images`: whether to read images inside Parquet files, see `parquet_rows`."""
        self.path = path
        self.split = split
        self.parameters = parameters
        self.boxes = boxes
        self.coordinates = coordinates
        self.notes: list[str] = []
        """What the importer tells about the rows read so far."""
        self._reads = reads
        self._images = images
        self._read: dict[str, Path] = {}
        self._whole = False

    @property
    def read(self) -> dict[str, Path]:
        """The files read so far, by their path relative to the folder, in the order of reading; the folder
        itself if files in it were looked for."""
        return {"folder": self.path} if self._whole else dict(self._read)

    def check(self) -> None:
        """Raise `UserError` if the path cannot be read as the declared container."""
        _check(self.path, self._reads)

    def records(self, name: str | None = None) -> Iterator[tuple[str, Any]]:
        """Place and record (or `RowError`), in order; see the protocol."""
        file = self._file(name)
        _check(file, self._reads)
        self._note(file)
        with _reading(file):
            container = self._reads or _container(file)
            if container in READERS:
                yield from READERS[container](file)
                return
        if container == "parquet":
            yield from parquet_rows(file, images=self._images)
        else:
            yield from self._saved_records(file)

    def columns(self) -> list[str]:
        """The names of the columns of a CSV file; see the protocol."""
        with _reading(self.path):
            return csv_columns(self.path)

    def _saved_records(self, folder: Path) -> Iterator[tuple[str, Any]]:
        """The records of a saved dataset, or of all splits of a saved `DatasetDict`.

        A record of a `DatasetDict` gets the name of its split, unless it or the dataset block has one.
        """
        for split, batches in _saved_to_disk(folder):
            for place, record in placed_rows(batches):
                if split and not self.split and isinstance(record, dict):
                    record.setdefault("split", split)
                yield f"{split} {place}" if split else place, record

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
            return json_value(file)

    def members(self, name: str | None = None) -> Iterator[tuple[str, Any]]:
        """Key and element of all lists in a JSON file; see the protocol."""
        file = self._file(name)
        _check(file, "jsonl")
        self._note(file)
        with _reading(file):
            yield from json_members(file)

    def text(self, name: str) -> str:
        """The content of a text file; see the protocol."""
        try:
            return self.content(name).decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise UserError(f"dataset file `{self._file(name)}` cannot be read: not UTF-8 text") from None

    def content(self, name: str) -> bytes:
        """The content of a small file; see the protocol."""
        file = self._file(name)
        _check(file, None)
        self._note(file)
        with _reading(file):
            return file.read_bytes()

    def tree(self, folder: str = "") -> Iterator[str]:
        """The files in a folder and its sub-folders; see the protocol."""
        _check(self.path, None)
        if not self.path.is_dir():
            raise UserError(f"dataset `{self.path}` is a file, expected a folder")
        if not (self.path / folder).resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"dataset `{self.path}`: `{one_line(folder)}` is outside of the folder")
        self._whole = True
        if (self.path / folder).is_dir():
            yield from _tree(self.path, folder)

    def tell(self, text: str) -> None:
        """Adds a line to the log; see the protocol."""
        self.notes.append(text)

    def _note(self, file: Path) -> None:
        """Remember a file as read; for a folder, its Arrow tables."""
        if self._whole:
            return
        files = [file] if file.is_file() else sorted([*file.glob("*.arrow"), *file.glob("*/*.arrow")])
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
            raise UserError(f"dataset file `{file}` is not a pickle of plain values: {one_line(error)}") from None
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(f"dataset file `{file}` is damaged: {one_line(error)}") from None


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, strings and numbers need no class; a pickle that imports one could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it imports `{module}.{name}`, which could run code")


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn errors of the operating system into `UserError`: the user has to fix them."""
    try:
        yield
    except OSError as error:
        raise UserError(f"dataset file `{one_line(file)}` cannot be read: {error.strerror}") from None


def _listed(folder: Path) -> list[str]:
    """The names in a folder. Raises `UserError` if it cannot be listed."""
    try:
        return [file.name for file in folder.iterdir()]
    except OSError as error:
        raise UserError(f"dataset folder `{folder}` cannot be listed: {error.strerror}") from None


def _tree(root: Path, folder: str) -> Iterator[str]:
    """The names of all files below a folder of `root`, sorted."""
    with _reading(root / folder), os.scandir(root / folder) as opened:
        entries = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file()) for entry in opened)
    for name, is_folder, is_file in entries:
        path = f"{folder}/{name}" if folder else name
        if name.startswith("."):
            continue
        if is_folder:
            yield from _tree(root, path)
        elif is_file:
            yield path


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
    if reads == "hf":
        return
    if not stat.S_ISREG(mode):  # reading a named pipe blocks forever
        raise UserError(f"dataset `{source}` is not a regular file, expected a file")
    _check_start(source, reads)


def _check_start(file: Path, reads: Container | None) -> None:
    """Raise `UserError` for a file that is obviously something else, such as an archive."""
    with _reading(file), file.open("rb") as opened:
        start = opened.read(START)
    found, suffix = mistaken(start), file.suffix.lower()
    as_csv = reads == "csv" or (reads is None and suffix == ".csv")
    if found is None and (reads == "jsonl" or suffix in (".json", ".jsonl")) and not as_csv:
        found = mistaken_for_json(start)
    if found is not None and not (as_csv and is_utf_16(start)):
        excel = found is EXCEL and (as_csv or suffix in (".xlsx", ".xlsm"))
        raise UserError(f"dataset file `{one_line(file)}` is {found.what}", HINT_OF_EXCEL if excel else found.hint)


def _container(file: Path) -> Container:
    """The container of a file by its suffix; of a `.json` file by its first character.

    Many `.json` files contain JSON lines. Raises `UserError` for an unknown suffix.
    """
    if file.is_dir():
        return "hf"
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"dataset file `{file}`: expected one of the suffixes {', '.join(SUFFIXES)}")
    if suffix in (".csv", ".parquet", ".tsv"):
        return suffix[1:]  # type: ignore[return-value]
    if suffix == ".json":
        return "json" if starts_with_list(file) else "jsonl"
    return "jsonl"


def _saved_to_disk(source: Path) -> Iterator[tuple[str, Batches]]:
    """The name of every split of a saved `DatasetDict`, or an empty name, and its batches."""
    import datasets

    for file in [*source.glob("*.arrow"), *source.glob("*/*.arrow")]:
        _check_start(file, "hf")
    expected = "expected a folder written by `datasets.save_to_disk`"
    try:
        loaded = datasets.load_from_disk(str(source))
    except (FileNotFoundError, NotADirectoryError):
        hint = HINT_OF_PARQUET if source.is_dir() and fnmatch.filter(_listed(source), "*.parquet") else HINT_OF_FOLDERS
        raise UserError(f"dataset `{source}` {_found_in(source)}, {expected}", hint) from None
    except Exception as error:  # JSON, type, key or Arrow errors, depending on which file is damaged
        raise UserError(f"dataset `{source}` is damaged, {expected}: {one_line(error)}") from None
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    for split, rows in splits.items():
        columns = labelled_features(rows.features.to_dict())
        yield str(split), ((batch, columns) for batch in rows.with_format("arrow").iter(1000))


def _found_in(source: Path) -> str:
    """What was found instead of a readable folder, for an error message."""
    if not source.is_dir():
        return "is a file"
    names = sorted(_listed(source))
    listed = ", ".join(f"`{one_line(name)}`" for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"is a folder with {listed}" if names else "is an empty folder"
