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
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.errors import UserError
from perceptune.contracts.files import appearing
from perceptune.contracts.tables.table import Table

if TYPE_CHECKING:
    import polars as pl

IMAGE_ROWS = 1000
"""Most rows per row group of tables with images, which are read group by group."""
IMAGE_BYTES = 2**29
"""Most bytes of images per row group. Arrow cannot read a row group whose lists hold more than
2 GiB (https://github.com/apache/arrow/issues/21526)."""


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
    table = to_table(kind, data)
    metadata = {**(table.schema.metadata or {}), b"perceptune": json.dumps({"table": kind.name, **lineage}).encode()}
    with appearing(path) as file:
        table = table.replace_schema_metadata(metadata)
        if "images" not in table.column_names:
            pq.write_table(table, file, compression="zstd")
            return
        with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
            for group in _groups(table):
                writer.write_table(group)


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    """The row groups of a table with images; an empty table is one group."""
    start = 0
    while start < max(table.num_rows, 1):
        group = table.slice(start, IMAGE_ROWS)
        while group.num_rows > 1 and group["images"].nbytes > IMAGE_BYTES:
            group = group.slice(0, group.num_rows // 2)
        yield group
        start += max(group.num_rows, 1)


def read_table(path: Path, kind: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of `kind` at `path`, or only `columns`, in that order.

    Read only the columns you need: `examples` can hold gigabytes of images. Raises `UserError` with the
    path if the file is missing, truncated or a different table.
    """
    name, expected = kind.name, kind.schema
    if path.exists() and not path.is_file():  # reading a named pipe would block forever
        raise UserError(f"`{path}` is {'a folder' if path.is_dir() else 'not a file'}, expected a `{name}` table")
    with _readable(path, f"a `{name}` table"):
        stored = pq.read_schema(path)
        same = stored.equals(expected, check_metadata=False)
        table = pq.read_table(path, partitioning=None, columns=columns if same else [])
    if not same:
        raise UserError(
            f"`{path}` is not a `{name}` table of this version: columns {stored.names}, expected {expected.names}",
            "delete the file and rerun",
        )
    return table


def scan_table(path: Path, kind: Table) -> pl.LazyFrame:
    """The table of `kind` at `path` as a Polars query, which reads only the columns and rows that it
    needs.

    Raises `UserError` like `read_table`.
    """
    import polars as pl  # not needed by dry runs

    read_table(path, kind, [])
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


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
    """The lineage that `write_table` stored at `path`; empty for files from elsewhere.

    Raises `UserError` with the path if the file cannot be read.
    """
    with _readable(path, "a table"):
        metadata = pq.read_schema(path).metadata or {}
        record = json.loads(metadata.get(b"perceptune", b"{}"))
    if not isinstance(record, dict):
        raise UserError(
            f"`{path}`: lineage is {str(record)[:60]!r}, expected a JSON object", "delete the file and rerun"
        )
    return record
