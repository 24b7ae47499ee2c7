"""Images in a record: a Hugging Face feature, base64 in VLMEvalKit's TSV files, or a path."""

from __future__ import annotations

import ast
import base64
from collections.abc import Mapping
from typing import Any

from perceptune.core.data.disk_dict import DiskDict
from perceptune.core.data.inline_images import DATA_URI, is_url
from perceptune.core.data.row_checks import RowError, shown

LONGEST_REFERENCE = 64
"""Text up to this length is the `index` of another row, whose image is used (VLMEvalKit)."""
Images = DiskDict | dict[str, Any]
"""Index of a row to its image."""


def image_in(record: Mapping[str, Any], columns: tuple[str, ...], images: Images) -> Any:
    """The image of a record in a row's form, also stored in `images` under the record's `index`.

    It is taken from the first of `columns` that the record has. Raises `RowError`, `KeyError`.
    """
    name = next((column for column in columns if column in record), columns[0])
    found = record[name]
    if isinstance(found, str):
        found = _of_text(found, name, images)
    if "index" in record:
        images[str(record["index"])] = found
    return found


def _of_text(text: str, column: str, images: Images) -> Any:
    if text in images:
        return images[text]
    if "." in text or is_url(text) or DATA_URI.match(text):  # no dot is in base64, but in every file's name
        return text
    if len(text) <= LONGEST_REFERENCE:
        raise RowError(f"`{column}` is {shown(text)}, expected the `index` of an earlier row, a path or base64")
    try:
        return {"bytes": base64.b64decode(text, validate=True), "path": None}
    except ValueError:
        raise RowError(f"`{column}` is {shown(text)}, expected a path or an image in base64") from None


def listed(value: Any, column: str) -> list[Any]:
    """A list, or one written as text in a TSV file; empty for null or "". Raises `RowError`."""
    if isinstance(value, list):
        return value
    if value is None or value == "":
        return []
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list):
        raise RowError(f"`{column}` is {shown(value)}, expected a list")
    return found


def mapped(value: Any, column: str) -> Mapping[str, Any]:
    """An object, or one written as text in a TSV file; empty for null or "". Raises `RowError`."""
    if isinstance(value, Mapping):
        return value
    if value is None or value == "":
        return {}
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, dict):
        raise RowError(f"`{column}` is {shown(value)}, expected an object")
    return found


def whole(value: Any, column: str) -> int:
    """An integer, also written as text or as `2.0` in a TSV file. Raises `RowError`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not number.is_integer():
        raise RowError(f"`{column}` is {shown(value)}, expected a whole number")
    return int(number)


def options_in(record: Mapping[str, Any], letters: str) -> list[str]:
    """The options in columns `A`, `B`, ..., up to the first missing column."""
    options = []
    for letter in letters:
        if letter not in record:
            break
        options.append(str(record[letter]))
    return options
