"""Errors that a user can mend: shown as one line without a traceback."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, TypeVar

SHOWN = 5
"""How many mistakes a message spells out; the rest are counted."""

T = TypeVar("T")


class UserError(Exception):
    """A mistake in what the user brought: a config key, a data row, an image, a model folder.

    Job scripts print `error: <message>` and, if given, a `hint:` line, and exit with status 1.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = f"error: {self.args[0]}"
        return f"{message}\nhint: {self.hint}" if self.hint else message


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control, direction and unpaired characters are spelled out; lines and tabs stay."""
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        else c.encode("unicode_escape").decode()
        for c in text
    )


def joined_mistakes(mistakes: Sequence[str]) -> str:
    """All mistakes at once, one a line: the first `SHOWN` spelled out, the rest counted."""
    lines = list(mistakes[:SHOWN])
    if len(mistakes) > SHOWN:
        lines.append(f"and {len(mistakes) - SHOWN} more")
    return "\n  ".join(lines)


def lookup(table: dict[str, T], name: str, what: str) -> T:
    """The entry `name`, or a `UserError` that lists what is allowed and the nearest name."""
    if name in table:
        return table[name]
    raise UserError(
        f"{what} `{name}` is not defined, expected one of {', '.join(map(repr, sorted(table)))}", near(name, table)
    )


def near(name: str, allowed: Any) -> str | None:
    """`did you mean ...?` for the closest allowed name, or None."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(allowed), n=1)
    return f"did you mean `{matches[0]}`?" if matches else None
