"""The one reader and writer of tables.

Every row in is a row out: a row that failed is present with its `reason`.
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

IMAGE_ROWS = 1000
"""Rows per group of tables with images: Arrow cannot read a group with more than 2 GiB of them back."""


def to_table(kind: Table, data: Any) -> pa.Table:
    """`data` (list of row dicts, Arrow table, or anything with `to_arrow`, as polars frames have) in the schema of `kind`.

    Raises `ValueError` naming table and column: missing, surplus or ill-typed, or a null where none may be.
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
    """Validates `data` against the schema of `kind` and writes it as zstd Parquet, atomically, with its lineage."""
    table = to_table(kind, data)
    metadata = {**(table.schema.metadata or {}), b"perceptune": json.dumps({"table": kind.name, **lineage}).encode()}
    with appearing(path) as file:
        rows = IMAGE_ROWS if "images" in table.column_names else None
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd", row_group_size=rows)


def read_table(path: Path, kind: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of `kind` at `path`, or some of its columns in their order: an `examples` table may hold gigabytes of images.

    A `UserError` names the file when it is absent, truncated or another table.
    """
    name, expected = kind.name, kind.schema
    if path.exists() and not path.is_file():  # a named pipe would be waited for for ever
        raise UserError(f"`{path}` is {'a folder' if path.is_dir() else 'no file'}, expected a `{name}` table")
    with _readable(path, f"a `{name}` table"):
        stored = pq.read_schema(path)
        same = stored.equals(expected, check_metadata=False)
        table = pq.read_table(path, partitioning=None, columns=columns if same else [])
    if not same:
        raise UserError(
            f"`{path}` is no `{name}` table of this version: columns {stored.names}, expected {expected.names}",
            "delete it and run again",
        )
    return table


class RowGroups:
    """The row groups of a Parquet file, read one at a time."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` naming a file that cannot be read, as `read` does."""
        self._path = path
        with _readable(path, "a table"):
            metadata = pq.read_metadata(path)
        ends = itertools.accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        self._ends = list(ends)

    def place_of(self, row: int) -> tuple[int, int]:
        """A row of the table as (number of its group, row in the group)."""
        number = bisect.bisect_right(self._ends, row)
        return number, row - (self._ends[number - 1] if number else 0)

    def read(self, number: int, column: str) -> pa.ChunkedArray:
        """One column of one group."""
        with _readable(self._path, "a table"), pq.ParquetFile(self._path) as file:
            return file.read_row_group(number, [column])[column]


@contextmanager
def _readable(path: Path, expected: str) -> Iterator[None]:
    """Raises `UserError` naming the file for what goes wrong when it is read."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"`{path}` does not exist, expected {expected}") from None
    except (pa.ArrowException, OSError, ValueError) as invalid:
        found = " ".join(str(invalid).split())
        raise UserError(f"`{path}` is not readable as Parquet: {found}", "delete it and run again") from None


def read_lineage(path: Path) -> dict[str, Any]:
    """The lineage that `write_table` stored in the file at `path`, empty for another's file; a `UserError` names a broken one."""
    with _readable(path, "a table"):
        metadata = pq.read_schema(path).metadata or {}
        record = json.loads(metadata.get(b"perceptune", b"{}"))
    if not isinstance(record, dict):
        raise UserError(f"`{path}` has no lineage but {str(record)[:60]!r}", "delete it and run again")
    return record
