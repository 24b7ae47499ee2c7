"""Tables read and written in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa

from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import TableWriter, read_batches
from perceptune.contracts.tables.table import Table


def whole_requests(batches: Iterable[pa.Table]) -> Iterator[pl.DataFrame]:
    """The same rows in batches that do not split the rows of a request, which follow each other."""
    rest: pl.DataFrame | None = None
    for batch in batches:
        part = pl.DataFrame(pl.from_arrow(batch))
        part = part if rest is None else pl.concat([rest, part])
        if part.height:
            before = (part["request_id"] != part["request_id"][-1]).arg_true()
            end = before[-1] + 1 if len(before) else 0
            if end:
                yield part[:end]
            part = part[end:]
        rest = part
    if rest is not None and rest.height:
        yield rest


class Following:
    """A table that is read on, as far as rows of another table with the same order are known."""

    def __init__(self, path: Path, kind: Table, columns: Sequence[str]) -> None:
        self._path, self._kind = path, kind
        self._batches = read_batches(path, kind, columns)
        self._rest = pl.DataFrame(pl.from_arrow(pa.schema([kind.schema.field(c) for c in columns]).empty_table()))

    def beside(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """`rows` with the other columns of the next rows of this table.

        Raises `UserError` unless these have the same `keys`.
        """
        while self._rest.height < rows.height and (batch := next(self._batches, None)) is not None:
            self._rest = pl.concat([self._rest, pl.DataFrame(pl.from_arrow(batch))])
        found, self._rest = self._rest[: rows.height], self._rest[rows.height :]
        if not found.select(keys).equals(rows.select(keys)):
            raise UserError(
                f"the rows of the `{self._kind.name}` table `{self._path}` are not those of the tables made from it"
            )
        return rows.hstack(found.drop(keys))


def write_beside(table: TableWriter, parts: Iterable[pl.DataFrame]) -> None:
    """Appends these rows, each part while the next one is made."""
    with ThreadPoolExecutor(1) as beside:
        written: Future[None] | None = None
        for part in parts:
            if written is not None:
                written.result()
            written = beside.submit(table.write, part)
        if written is not None:
            written.result()
