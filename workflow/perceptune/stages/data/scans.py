"""Queries on whole tables, with little memory."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import Rows
from perceptune.contracts.tables.table import Table


def scan(path: Path, kind: Table) -> pl.LazyFrame:
    """A table as a query, which reads only the columns and rows that it needs.

    Raises `UserError` like `read_table`.
    """
    Rows(path, kind, [])
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def numbered(path: Path, kind: Table) -> pl.LazyFrame:
    """The same with the number of each `row`."""
    return scan(path, kind).with_row_index("row")


def collected(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """The result, computed with little memory.

    Raises `UserError` if the file at `path` is damaged.
    """
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as damaged:
        raise UserError(f"`{path}` is not readable as Parquet: {damaged}", "delete the file and rerun") from None
