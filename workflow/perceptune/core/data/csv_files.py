"""Read CSV and TSV files with a header, one row at a time: files may be larger than the memory."""

from __future__ import annotations

import codecs
import csv
import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.contracts.files import IMAGE_SUFFIXES
from perceptune.core.data.inline_images import DATA_URI
from perceptune.core.data.parquet_files import check_names
from perceptune.core.data.row_checks import KEYS, RowError, one_line

HINT_OF_QUOTES = 'write a field that begins with `"` in quotation marks, and each `"` inside it twice'
HINT_OF_ENCODING = "save the file as UTF-8 (in Excel, `CSV UTF-8`)"
SEPARATORS = ("\t", ";", ",")
"""Excel writes semicolons where commas separate decimals, and tabs into `Unicode text`."""
DECLARED = re.compile(r"sep=(.)\r?\n?")
"""A first line with which Excel declares the separator."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def tsv_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and record of the rows of a UTF-8 file whose columns are separated by tabs."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        yield from _rows(opened, file, "\t")


def csv_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """The same of a file as Excel exports it: with commas, semicolons or tabs, in UTF-8 or UTF-16,
    with or without a byte order mark. The header decides which character separates columns."""
    with _at_header(file) as (opened, separator, start):
        yield from _rows(opened, file, separator, start)


def csv_columns(file: Path) -> list[str]:
    """The names of the columns of such a file, of which `csv_rows` has read the header."""
    with _at_header(file) as (opened, separator, _):
        lines = csv.reader(opened, delimiter=separator, strict=True)
        return [cell.strip() for cell in next(filter(None, lines), [])]


@contextmanager
def _at_header(file: Path) -> Iterator[tuple[TextIOBase, str, int]]:
    """The file opened at its header, the separator of its columns, and the number of the header's line."""
    with file.open(encoding=_encoding(file), newline="") as opened:
        try:
            first = opened.readline()
            declared = DECLARED.fullmatch(first)
            lines = itertools.chain([] if declared else [first], iter(opened.readline, ""))
            header = next((line for line in lines if line.strip()), "")
        except UnicodeDecodeError as error:
            raise _undecodable(error, file, 1) from None
        separator = declared[1] if declared else _separator(header, file)
        opened.seek(0)
        if declared:
            opened.readline()
        yield opened, separator, 2 if declared else 1


def is_utf_16(start: bytes) -> bool:
    """Whether a file begins with a byte order mark of UTF-16."""
    return start.startswith(UTF_16)


def _encoding(file: Path) -> str:
    with file.open("rb") as opened:
        return "utf-16" if is_utf_16(opened.read(2)) else "utf-8-sig"


def _separator(header: str, file: Path) -> str:
    """The character that separates the columns of a header: that which finds most of a row's keys."""

    def found(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=separator), [])
        return sum(cell.strip() in KEYS for cell in cells), len(cells)

    best = max(SEPARATORS, key=found)
    if header.strip() and found(best)[1] < 2:
        what = f"line 1 is {one_line(header.strip())!r}, a single column"
        raise UserError(
            f"dataset file `{file}`: {what}, expected the names of columns, separated by commas, semicolons or tabs"
        )
    return best


def _rows(opened: TextIOBase, source: Path, separator: str, start: int = 1) -> Iterator[tuple[str, Any]]:
    """Rows of text; fields of any length, since VLMEvalKit's contain images in base64.

    `start` is the number of the header's line. Raises `UserError` for a quotation mark that is never
    closed, or closed in a later row: it turns the rows between into the text of one field.
    """
    csv.field_size_limit(sys.maxsize)
    skipped = start - 1
    reader = csv.reader(opened, delimiter=separator, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            place, start = start, reader.line_num + skipped + 1
            if not header:
                header = [cell.strip() for cell in cells]
                check_names(header, source)
            elif cells:
                if start > place + 1 and _swallows_rows(cells, header, separator):
                    message = "a quotation mark opens a field that contains the rows after it"
                    raise UserError(f"dataset file `{source}`, line {place}: {message}", HINT_OF_QUOTES)
                yield f"line {place}", _record(cells, header)
    except UnicodeDecodeError as error:
        raise _undecodable(error, source, start) from None
    except csv.Error as error:
        unclosed = "unexpected end" in str(error)
        what = "a quotation mark is opened but never closed" if unclosed else one_line(error)
        raise UserError(f"dataset file `{source}`, line {start}: {what}", HINT_OF_QUOTES) from None


def _undecodable(error: UnicodeDecodeError, source: Path, start: int) -> UserError:
    """The error for text in another encoding, at or after line `start`: text is decoded in blocks."""
    if error.encoding.replace("-", "").startswith("utf16"):
        return UserError(f"dataset file `{source}`, after line {start}: {one_line(error)}", HINT_OF_ENCODING)
    with source.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                what = f"{line[found.start : found.start + 1]!r} is not UTF-8 text"
                return UserError(f"dataset file `{source}`, line {number}: {what}", HINT_OF_ENCODING)
    return UserError(f"dataset file `{source}`: {one_line(error)}", HINT_OF_ENCODING)


def _record(cells: list[str], header: list[str]) -> dict[str, str] | RowError:
    """The row without empty cells."""
    if len(cells) != len(header):
        return RowError(f"{len(cells)} columns, expected the {len(header)} of the header")
    return {name: cell for name, cell in zip(header, cells, strict=True) if cell}


def _swallows_rows(cells: list[str], header: list[str], separator: str) -> bool:
    """Whether a row of several lines has a field that contains other rows."""
    columns = len(header)
    if len(cells) != columns:
        return True
    fields = [cell for cell in cells if "\n" in cell and separator in cell]
    if separator == "\t":
        return any(
            cell.count("\t") == cell.count("\n") * (columns - 1)
            or any(line.count("\t") == columns - 1 for line in cell.split("\n")[1:-1])
            for cell in fields
        )
    # commas and semicolons are also in text: a row is a line that names an image
    place = next((header.index(key) for key in ("image", "images") if key in header), None)
    if place is None:
        return False
    lines = (line.split(separator) for cell in fields for line in cell.split("\n")[1:])
    return any(len(found) > place and _names_image(found[place]) for found in lines)


def _names_image(cell: str) -> bool:
    return cell.strip(' "\r').lower().endswith(IMAGE_SUFFIXES) or DATA_URI.match(cell) is not None
