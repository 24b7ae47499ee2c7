"""What a format of data sets declares: how its files become rows, and what the numbers of its boxes mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from perceptune.contracts.config import Coordinates, Task
from perceptune.core.importing import RowError

Row = dict[str, Any]
"""A row as `core.importing.checked_row` takes it: `id`, `image` or `images`, `question`, `answer`, `box`, `task`, `split`;
every other key is kept in the column `source` of the `examples` table."""

Placed = tuple[str, Any]
"""A place in a file, such as `line 3`, and what stands there: a record, or the `RowError` of reading it."""


class Source(Protocol):
    """The file or folder that a dataset block names; reading is the business of `stages.reading`."""

    path: Path

    def records(self, name: str | None = None) -> Iterator[Placed]:
        """The records of the file (or of file `name` in the folder), in order.

        JSON lines, a JSON list, Parquet, TSV with a header, or a folder written by `datasets.save_to_disk`, whatever it is
        called; a folder of Parquet files one after the other. Nulls are left out of records. Raises `UserError` for a file
        that cannot be read at all.
        """
        ...

    def names(self, pattern: str) -> list[str]:
        """Files of the folder that match the pattern, sorted; the file's own name if the source is a file that matches."""
        ...

    def unpickled(self, name: str) -> Any:
        """A pickle of plain values (lists, dicts, strings, numbers); `UserError` for one that would run code."""
        ...


@dataclass(frozen=True)
class Importer:
    """A format of data sets, under the name that `kind` of a dataset block gives."""

    name: str
    rows: Callable[[Source], Iterator[Placed]]
    """Place and row, in the files' order; a `RowError` in place of a row that cannot be made."""
    coordinates: Coordinates | None = None
    """What the numbers of its boxes mean; None: the dataset block's `coordinates` says."""
    task: Task | None = None
    """Task of rows that name none, where the dataset block names none either."""
    reads: Literal["jsonl", "parquet", "hf"] | None = None
    """The only way that its file is read; None: what the file is decides."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Official numbers of rows, by split; a different number is reported, not refused: people take parts."""


def as_written(source: Source) -> Iterator[Placed]:
    """Records that are rows already."""
    yield from source.records()


def each(record_to_row: Callable[[Mapping[str, Any]], Row]) -> Callable[[Source], Iterator[Placed]]:
    """The rows of a format with one row per record; `record_to_row` may raise `RowError` or `KeyError`."""

    def rows(source: Source) -> Iterator[Placed]:
        for place, record in source.records():
            yield place, made(record_to_row, record)

    return rows


def made(record_to_row: Callable[[Mapping[str, Any]], Row], record: Any) -> Row | RowError:
    """The row of a record, or what is wrong with it."""
    if isinstance(record, RowError):
        return record
    if not isinstance(record, Mapping):
        return RowError(f"found {str(record)[:60]!r}, expected an object")
    try:
        return record_to_row(record)
    except KeyError as missing:
        return RowError(f"key `{missing.args[0]}` is missing; there are {', '.join(map(str, record))}")
    except RowError as wrong:
        return wrong
