"""Errors that a user can fix: shown as one line without a traceback."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

SHOWN = 5
"""Number of mistakes that a message lists; the rest are only counted."""

ERRORS_LAST = "PERCEPTUNE_ERRORS_LAST"
"""Environment variable of jobs whose Snakemake shows the errors of all failed jobs when it ends."""

T = TypeVar("T")


class UserError(Exception):
    """A mistake in the user's input: a config key, a data row, an image, a model folder.

    Jobs print `error: <message>` and, with a hint, a `hint:` line, and exit with status 1.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = f"error: {self.args[0]}"
        return f"{message}\nhint: {self.hint}" if self.hint else message


def printable(text: str) -> str:
    """Text that is safe on a terminal.

    Escapes control, bidirectional and unpaired surrogate characters; newlines and tabs stay.
    """
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        else c.encode("unicode_escape").decode()
        for c in text
    )


def joined_mistakes(mistakes: Sequence[str], separator: str = "\n  ", count: int | None = None) -> str:
    """Mistakes, one per line: lists the first `SHOWN` and counts the rest. `count` is their number if
    `mistakes` are only the first ones."""
    lines = list(mistakes[:SHOWN])
    if more := (len(mistakes) if count is None else count) - len(lines):
        lines.append(f"and {more} more")
    return separator.join(lines)


def listed(names: Iterable[object]) -> str:
    """Names as text for messages."""
    return ", ".join(f"`{name}`" for name in names)


def lookup(table: dict[str, T], name: str, what: str) -> T:
    """The entry `name`. Raises `UserError` with the allowed names and the closest one."""
    if name in table:
        return table[name]
    raise UserError(f"{what} `{name}` is not defined, {expected(sorted(table))}", near(name, table))


def expected(names: Sequence[str]) -> str:
    """The end of a message about an unknown name: the allowed ones."""
    return f"expected one of {', '.join(map(repr, names))}" if names else "and there are none to choose from"


def near(name: str, allowed: Any, similarity: float = 0.6) -> str | None:
    """`did you mean ...?` with the closest allowed name, or None. `similarity` is that of `nearest`."""
    closest = nearest(name, allowed, similarity)
    return f"did you mean `{closest}`?" if closest else None


def nearest(name: str, allowed: Any, similarity: float = 0.6) -> str | None:
    """The closest allowed name; None if the ratio of matching characters (`difflib`) is below
    `similarity` for all."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(allowed), n=1, cutoff=similarity)), None)
