"""Read the rows of Parquet files batch by batch, with or without the images in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.errors import UserError
from perceptune.core.data.class_labels import Named, labelled_columns, with_names
from perceptune.core.data.row_checks import RowError, one_line

UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
"""Raised for values that Python lacks: invalid UTF-8, the year 300,000, odd time zones."""
ROWS_AT_ONCE = 1000
BYTES_AT_ONCE = 2**22
"""Rows of a Parquet file that are read at once, and their mean size; single ones may be larger."""
BUFFER = 2**16
"""Bytes of a column chunk that are read at once: without this, Arrow reads whole row groups."""
UNREAD = b"\0"
"""Stands for an image that is not read."""

Batches = Iterator[tuple[Any, dict[str, Named]]]
"""Batches of rows, and the columns with class labels."""


def parquet_rows(file: Path, *, images: bool = True) -> Iterator[tuple[str, Any]]:
    """Place and record, or `RowError`, of every row, without null values.

    Without `images`, those that are in the file are not read; `UNREAD` stands for them. Raises
    `UserError`.
    """
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER) as opened:
            check_names(opened.schema_arrow.names, file)
            left_out = [] if images else _image_bytes(opened)
            labels = labelled_columns(opened.schema_arrow.metadata)
            for place, row in placed_rows(
                (batch, labels)
                for batch in opened.iter_batches(_rows_at_once(opened.metadata), columns=_others(opened, left_out))
            ):
                if isinstance(row, dict):
                    for column in left_out:
                        column.fill(row)
                yield place, row
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a column name that is not valid UTF-8
        raise UserError(f"dataset `{file}` is not readable as Parquet: {one_line(error)}") from None


def check_names(names: list[str], source: Path) -> None:
    """Raises `UserError` if two columns have the same name."""
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UserError(f"dataset file `{source}`: two columns `{one_line(twice)}`, expected different names")


def placed_rows(batches: Batches) -> Iterator[tuple[str, Any]]:
    """Place and record (or `RowError`) of the rows of Arrow batches."""
    number = 0
    for batch, columns in batches:
        for row in _plain_rows(batch):
            number += 1
            yield f"row {number}", row if isinstance(row, RowError) else with_names(row, columns)


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Rows to read at once. Arrow cannot read more than 2 GiB in lists of images, which a single row
    group may hold (https://github.com/apache/arrow/issues/21526)."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(1, min(ROWS_AT_ONCE, int(BYTES_AT_ONCE / max(largest, 1.0))))


def _plain_rows(batch: Any) -> list[Any]:
    """The rows of an Arrow batch without nulls; a `RowError` for a row with an unreadable value."""
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


@dataclass(frozen=True)
class _ImageBytes:
    """Bytes that are in every row: a column, or a field of a struct or of a list of structs."""

    leaf: str
    """Path of the Parquet column."""
    column: str
    field: str | None

    def fill(self, row: dict[str, Any]) -> None:
        """Puts `UNREAD` where the bytes are in the row."""
        if self.field is None:
            row[self.column] = UNREAD
            return
        value = row.get(self.column)
        for struct in value if isinstance(value, list) else [value]:
            if isinstance(struct, dict):
                struct[self.field] = UNREAD


def _image_bytes(file: pq.ParquetFile) -> list[_ImageBytes]:
    """The columns of bytes that need not be read to know where bytes are, because none is null."""
    metadata = file.metadata
    leaves = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    found = []
    for field in file.schema_arrow:
        struct = field.type.value_type if pa.types.is_list(field.type) else field.type
        if _is_binary(field.type):
            names: list[str | None] = [None]
        elif pa.types.is_struct(struct) and not all(_is_binary(inner.type) for inner in struct):
            names = [inner.name for inner in struct if _is_binary(inner.type)]
        else:
            continue
        for name in names:
            ends = field.name, f".{name}" if name else field.name
            paths = [leaf for leaf in leaves if leaf.split(".")[0] == ends[0] and leaf.endswith(ends[1])]
            chunks = [group.column(leaves.index(path)) for path in paths[:1] for group in groups]
            if len(paths) == 1 and all(one.statistics and one.statistics.null_count == 0 for one in chunks):
                found.append(_ImageBytes(paths[0], field.name, name))
    return found


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _others(file: pq.ParquetFile, left_out: list[_ImageBytes]) -> list[str] | None:
    """The columns to read; None for all."""
    unread = {one.leaf for one in left_out}
    leaves = [file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)]
    return [leaf for leaf in leaves if leaf not in unread] if unread else None
