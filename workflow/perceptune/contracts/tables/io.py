"""Reading and writing of tables.

Every stage writes a row for each row it reads; failed rows have a `reason`.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.errors import UserError
from perceptune.contracts.files import appearing
from perceptune.contracts.tables.table import Table

GROUP_ROWS = 2**16
IMAGE_ROWS = 1000
"""Most rows per row group: of most tables, and of tables with images, whose rows are fetched by
group."""
GROUP_BYTES = 2**24
"""Most bytes per row group, unless a single row has more: what a reader of groups has in memory."""
FORMAT: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
"""How Parquet is written. zstd finds repetitions at least as well as dictionaries, in half the time;
no reader uses statistics."""
BUFFER = 2**20
"""Bytes read at once from a column of a row group, which may be as large as the table."""


def to_table(kind: Table, data: Any) -> pa.Table:
    """`data` as an Arrow table with the schema of `kind`.

    `data` is a list of row dicts, an Arrow table, or an object with `to_arrow`, such as a polars data
    frame. Raises `ValueError` with table and column for missing, unknown or wrongly typed columns and
    for unexpected nulls.
    """
    schema, name = kind.schema, kind.name
    if isinstance(data, list):
        surplus = set().union(*(row.keys() for row in data[:1])) - set(schema.names)
        if surplus:
            raise ValueError(f"table `{name}`: unknown columns {sorted(surplus)}")
        table = pa.Table.from_pylist(data, schema=schema)
    else:
        table = data if isinstance(data, pa.Table) else data.to_arrow()
        if set(table.column_names) != set(schema.names):
            missing, surplus = set(schema.names) - set(table.column_names), set(table.column_names) - set(schema.names)
            raise ValueError(f"table `{name}`: missing columns {sorted(missing)}, unknown columns {sorted(surplus)}")
        table = table.select(schema.names).cast(schema)
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(
                f"table `{name}`, column `{field.name}`: {table[field.name].null_count} nulls, expected none"
            )
    return table


def write_table(path: Path, kind: Table, data: Any, lineage: Mapping[str, Any]) -> None:
    """Validates `data` and writes it with its lineage as Parquet (zstd), atomically."""
    with table_writer(path, kind) as table:
        table.write(data)
        table.lineage = lineage


@contextmanager
def table_writer(path: Path, kind: Table) -> Iterator[TableWriter]:
    """Writes a table piece by piece. It appears at `path` at the end, or not at all after an error.

    with table_writer(path, REWARDS) as table:
        for batch in batches:
            table.write(batch)
        table.lineage = lineage(...)
    """
    with appearing(path) as file, pq.ParquetWriter(file, kind.schema, **FORMAT) as opened:
        table = TableWriter(kind, opened)
        yield table
        table.finish()


class TableWriter:
    """A table being written, see `table_writer`. Only the rows of one row group are in memory."""

    def __init__(self, kind: Table, file: pq.ParquetWriter) -> None:
        self.lineage: Mapping[str, Any] | None = None
        """To be set before the end."""
        self.rows = 0
        """Number of rows so far."""
        self._kind, self._file = kind, file
        self._waiting = kind.schema.empty_table()

    def write(self, data: Any) -> None:
        """Appends rows, in any form that `to_table` takes; raises `ValueError` like it. Pieces of
        about 1,000 rows or more are efficient."""
        table = to_table(self._kind, data)
        self.rows += table.num_rows
        *complete, self._waiting = _groups(pa.concat_tables([self._waiting, table]))
        for group in complete:
            self._file.write_table(group)

    def finish(self) -> None:
        """Writes the last rows and the lineage."""
        if self.lineage is None:
            raise ValueError(f"table `{self._kind.name}` is written without a lineage")
        self._file.write_table(self._waiting)
        record = {"table": self._kind.name, **self.lineage}
        self._file.add_key_value_metadata({"perceptune": json.dumps(record)})


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    """The row groups of a table; an empty table is one group."""
    start, most = 0, IMAGE_ROWS if "images" in table.column_names else GROUP_ROWS
    while start < max(table.num_rows, 1):
        group = table.slice(start, most)
        while group.num_rows > 1 and group.nbytes > GROUP_BYTES:
            group = group.slice(0, group.num_rows // 2)
        yield group
        start += max(group.num_rows, 1)


def read_table(path: Path, kind: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of `kind` at `path`, or only `columns`, in that order.

    Read only the columns you need: `examples` can hold gigabytes of images. Raises `UserError` with the
    path if the file is missing, truncated or a different table.
    """
    _check(path, kind)
    names = kind.columns if columns is None else list(columns)
    with _readable(path, f"a `{kind.name}` table"), pq.ParquetFile(path) as file:  # pq.read_table imports pandas
        return file.read(names).select(names)


def read_batches(path: Path, kind: Table, columns: Sequence[str], rows: int = GROUP_ROWS) -> Iterator[pa.Table]:
    """`columns` of the table of `kind` at `path`, in batches of at most `rows` rows.

    Only one batch is in memory; none crosses the end of a row group. Raises `UserError` like
    `read_table`.
    """
    _check(path, kind)
    with _readable(path, f"a `{kind.name}` table"), pq.ParquetFile(path, buffer_size=BUFFER) as file:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(rows, row_groups=[group], columns=list(columns)):
                yield pa.Table.from_batches([batch]).select(list(columns))


def _check(path: Path, kind: Table) -> None:
    """Raises `UserError` unless `path` is a table of `kind`."""
    name, expected = kind.name, kind.schema
    if path.exists() and not path.is_file():  # reading a named pipe would block forever
        raise UserError(f"`{path}` is {'a folder' if path.is_dir() else 'not a file'}, expected a `{name}` table")
    with _readable(path, f"a `{name}` table"):
        stored = pq.read_schema(path)
    if not stored.equals(expected, check_metadata=False):
        raise UserError(
            f"`{path}` is not a `{name}` table of this version: columns {stored.names}, expected {expected.names}",
            "delete the file and rerun",
        )


class RowGroups:
    """The row groups of a Parquet file, read one at a time."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` with the path if the file cannot be read; so does `read`."""
        self._path = path
        with _readable(path, "a table"):
            metadata = pq.read_metadata(path)
        ends = itertools.accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        self._ends = list(ends)

    def place_of(self, row: int) -> tuple[int, int]:
        """The position of a table row, as (row group, row in that group)."""
        number = bisect.bisect_right(self._ends, row)
        return number, row - (self._ends[number - 1] if number else 0)

    def read(self, number: int, column: str) -> pa.ChunkedArray:
        """One column of a row group."""
        with _readable(self._path, "a table"), pq.ParquetFile(self._path) as file:
            return file.read_row_group(number, [column])[column]


@contextmanager
def _readable(path: Path, expected: str) -> Iterator[None]:
    """Turns errors of reading the file into `UserError` with its path."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"`{path}` does not exist, expected {expected}") from None
    except (pa.ArrowException, OSError, ValueError) as invalid:
        found = " ".join(str(invalid).split())
        raise UserError(f"`{path}` is not readable as Parquet: {found}", "delete the file and rerun") from None


def read_lineage(path: Path) -> dict[str, Any]:
    """The lineage that is stored in the table at `path`; empty for files from elsewhere.

    Raises `UserError` with the path if the file cannot be read.
    """
    with _readable(path, "a table"):
        metadata = pq.read_metadata(path).metadata or {}
        record = json.loads(metadata.get(b"perceptune", b"{}"))
    if not isinstance(record, dict):
        raise UserError(
            f"`{path}`: lineage is {str(record)[:60]!r}, expected a JSON object", "delete the file and rerun"
        )
    return record
