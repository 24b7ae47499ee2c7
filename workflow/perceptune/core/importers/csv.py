"""CSV or TSV with a header, as Excel exports it, with rows in perceptune's own format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perceptune.contracts.errors import UserError, listed
from perceptune.core.data.row_checks import RowError, misspelling, one_line, shown
from perceptune.core.importers.importer import KEYS_SHOWN, Importer, Placed, Row, Source, corners

CORNERS, PLACE_AND_SIZE = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")
"""Columns that together hold a box."""
NEEDED = (("image", "images"), ("question",))
"""Columns of which one each is needed."""
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?")


def rows(source: Source) -> Iterator[Placed]:
    """A row per record, without records whose cells are all empty and without columns that have no
    name, as Excel and pandas write them. Raises `UserError` if a column is missing."""
    columns: list[str] = []
    for place, record in source.records():
        if not columns:
            columns = source.columns()
            _check_columns(columns, source)
        if isinstance(record, RowError):
            yield place, record
            continue
        named = {name: cell for name, cell in record.items() if name and cell.strip()}
        if named:
            try:
                _check_filled(named, columns)
                yield place, _row(named, source)
            except RowError as wrong:
                yield place, wrong


def _check_columns(columns: Sequence[str], source: Source) -> None:
    """Raise `UserError` with all columns that are missing."""
    missing = [names[0] for names in NEEDED if not set(names) & set(columns)]
    if not missing:
        return
    lacking = []
    for name in missing:
        typed = misspelling(name, columns)
        lacking.append(f"`{name}` (is it {typed}, misspelled?)" if typed else f"`{name}`")
    named = [one_line(name) for name in columns if name]
    more = f" and {len(named) - KEYS_SHOWN:,} more" if len(named) > KEYS_SHOWN else ""
    raise UserError(
        f"dataset file `{source.path}`: columns found: {listed(named[:KEYS_SHOWN])}{more}; missing: {', '.join(lacking)}",
        "rename the columns in the header of the file",
    )


def _check_filled(record: Mapping[str, str], columns: Sequence[str]) -> None:
    """Raise `RowError` for a record without text in a column that it needs."""
    for names in NEEDED:
        if not set(names) & set(record):
            raise RowError(f"column {listed([name for name in names if name in columns])} is empty")


def _row(record: Mapping[str, str], source: Source) -> Row:
    """The row of a record, with numbers for its box. Raises `RowError`."""
    if "box" in record:
        return {**record, "box": _numbers(record["box"])}
    for names in (CORNERS, PLACE_AND_SIZE):
        found = [name for name in names if name in record]
        if len(found) < 3:  # an image, too, has a width and a height
            continue
        if len(found) == 3:
            (empty,) = set(names) - set(found)
            raise RowError(f"column `{empty}` is empty and {listed(found)} are not, expected four numbers or none")
        if source.boxes:
            raise UserError(
                f"dataset `{source.path}`: `boxes: {source.boxes}`, but the names of the columns {listed(names)} say the order",
                "remove `boxes`",
            )
        numbers = [_number(record[name], name) for name in names]
        rest: dict[str, Any] = {name: cell for name, cell in record.items() if name not in names}
        return {**rest, "box": numbers if names is CORNERS else corners(numbers)}
    return dict(record)


def _numbers(text: str) -> list[float]:
    """The numbers in a cell, with or without brackets. Semicolons or spaces separate numbers with
    decimal commas. Raises `RowError`."""
    inside = text.strip().strip("[]()").strip()
    for parts in (inside.split(";"), inside.split(","), inside.split()):
        cells = [part.strip().strip(",") for part in parts]
        if len(cells) == 4 and all(map(NUMBER.fullmatch, cells)):
            return [_number(cell, "box") for cell in cells]
    raise RowError(f"`box` is {shown(text)}, expected four numbers such as `[52, 80, 120, 190]`")


def _number(text: str, column: str) -> float:
    """A number, also with a decimal comma. Raises `RowError`."""
    if not NUMBER.fullmatch(text.strip()):
        raise RowError(f"`{column}` is {shown(text)}, expected a number")
    return float(text.strip().replace(",", "."))


IMPORTER = Importer("csv", rows, boxes="xyxy", reads="csv")
