"""Read JSON lines and lists of records, one at a time: files may be larger than the memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.row_checks import RowError, one_line

BYTES_AT_ONCE = 2**20
LONGEST_RECORD = 2**28
"""Bytes up to which a file is tried as one record that spans several lines."""
START_OF_LIST = re.compile(rb"(\xef\xbb\xbf)?[ \t\r\n]*\[")
DECODE = json.JSONDecoder().decode
FOLLOWING = (",", "]", "}", ":")
"""Characters that may follow a value, and end it."""
SPACE = re.compile(r"[ \t\r\n]*")


def starts_with_list(file: Path) -> bool:
    """Whether the first character of a file opens a list."""
    with file.open("rb") as opened:
        return START_OF_LIST.match(opened.read(4096)) is not None


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and record, or `RowError`, of every line that is not empty. A file that is one JSON value
    is read as that, whatever its name: a list, or a record that spans several lines."""
    if starts_with_list(file) and _is_list(file):
        yield from json_list(file)
        return
    with file.open("rb") as opened:
        lines = ((number, _record(line)) for number, line in enumerate(opened, 1) if line.strip())
        for count, (number, record) in enumerate(lines):
            if not count and isinstance(record, RowError) and (whole := _one_record(file)) is not None:
                yield from _numbered([whole])
                return
            yield f"line {number}", record


def json_list(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and record of a file that is a list. Raises `UserError` with the place of the mistake, after
    the records before it."""
    try:
        yield from _numbered(_elements(file))
    except (ValueError, RecursionError):
        json_value(file)  # raises the reason with line and column
        raise


def json_members(file: Path) -> Iterator[tuple[str, Any]]:
    """Key and element of every list in a file that is one object, one element at a time.

    Other values are passed over. Raises `UserError` with the place of a mistake, after the elements
    before it.
    """
    try:
        yield from _members(file)
    except (ValueError, RecursionError):
        found = json_value(file)  # raises the reason with line and column
        if isinstance(found, dict):
            raise
        what = "a list" if isinstance(found, list) else "a single value"
        raise UserError(f"dataset file `{file}` is {what}, expected an object with lists") from None


def json_value(file: Path) -> Any:
    """The value of a whole file. Raises `UserError`."""
    try:
        return _value(file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"dataset file `{file}` is not valid JSON: {one_line(error)}") from None


def _record(line: bytes) -> Any:
    """The value of a line, or a `RowError`."""
    try:
        return DECODE(line.decode().removeprefix("\ufeff"))  # the codec `utf-8-sig` is slow
    except UnicodeDecodeError:
        return RowError("not UTF-8 text")
    except json.JSONDecodeError as error:
        return RowError(f"not valid JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RowError("not valid JSON: nested too deeply")
    except ValueError as error:  # a number with too many digits
        return RowError(f"not valid JSON: {error}")


def _value(file: Path) -> Any:
    return json.loads(file.read_bytes().decode("utf-8-sig"))


def _one_record(file: Path) -> Any:
    """The value of a file that is a single one; None for others."""
    if file.stat().st_size > LONGEST_RECORD:
        return None
    try:
        return _value(file)
    except (ValueError, RecursionError):
        return None


def _is_list(file: Path) -> bool:
    try:
        return all(True for _ in _elements(file))
    except (ValueError, RecursionError):
        return False


def _numbered(records: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for number, record in enumerate(records, 1):
        yield (
            f"record {number}",
            {k: v for k, v in record.items() if v is not None} if isinstance(record, dict) else record,
        )


def _elements(file: Path) -> Iterator[Any]:
    """The elements of a list. Raises `ValueError` or `RecursionError` where `json.loads` of the whole
    file does."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        text = _Text(opened.read)
        yield from _list(text)
        if text.next():
            raise ValueError("more after the list")


def _members(file: Path) -> Iterator[tuple[str, Any]]:
    """The same. Raises `ValueError` or `RecursionError`."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        text = _Text(opened.read)
        text.take("{")
        more = text.next() != "}"
        while more:
            key = text.value()
            if not isinstance(key, str):
                raise ValueError("expected a name")
            text.take(":")
            if text.next() == "[":
                yield from ((key, element) for element in _list(text))
            else:
                text.value()
            if more := text.next() != "}":
                text.take(",")
        text.take("}")
        if text.next():
            raise ValueError("more after the object")


def _list(text: _Text) -> Iterator[Any]:
    """The elements of a list that begins here."""
    text.take("[")
    if text.next() == "]":
        text.take("]")
        return
    yield text.value()
    while text.next() != "]":
        text.take(",")
        yield text.value()
    text.take("]")


class _Text:
    """A JSON text, of which only the part that is being parsed is in memory."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._text, self._place, self._ended = "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            self._place = SPACE.match(self._text, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def take(self, character: str) -> None:
        """Passes over this character. Raises `ValueError` for another one."""
        if self.next() != character:
            raise ValueError(f"expected {character}")
        self._place += 1

    def value(self) -> Any:
        """The value that follows. Raises `ValueError` if it is invalid."""
        self.next()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
                follows = SPACE.match(self._text, end).end()  # type: ignore[union-attr]
                if self._text[follows : follows + 1] in FOLLOWING or not self._more():  # a number could go on
                    self._place = end
                    return value
            except ValueError:
                if not self._more():
                    raise

    def _more(self) -> bool:
        """Reads on, as much again as is not parsed yet, so that long values are not parsed too often;
        False at the end."""
        more = "" if self._ended else self._read(max(BYTES_AT_ONCE, len(self._text) - self._place))
        self._ended = not more
        if more:
            self._text, self._place = self._text[self._place :] + more, 0
        return not self._ended
