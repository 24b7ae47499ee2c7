"""How many rows may fail before a stage stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from perceptune.contracts.errors import SHOWN, UserError, joined_mistakes
from perceptune.contracts.shares import exact_share


class Failures:
    """Failed rows. Keeps those that a message shows: one row for each cause, because one missing image, or
    one mistake in a script, fails many rows."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        """`lines`: see `add`."""
        self._first: dict[str, str] = {}
        self._times: Counter[str] = Counter()
        self._others: list[str] = []
        self._count = 0
        for line in lines:
            self.add(line)

    def __len__(self) -> int:
        return self._count

    def add(self, line: str) -> None:
        """Adds a row, a line `<name>: <cause>`."""
        self._count += 1
        cause = line.partition(": ")[2]
        if cause and (cause in self._first or len(self._first) < SHOWN):
            self._first.setdefault(cause, line)
            self._times[cause] += 1
        elif not cause and len(self._others) < SHOWN:
            self._others.append(line)

    @property
    def lines(self) -> str:
        """The first row of each cause, with the number of rows if there are several, and the number of the
        others."""
        shown = [
            line + (f" ({self._times[cause]:,} times)" if self._times[cause] > 1 else "")
            for cause, line in self._first.items()
        ]
        repeated = self._times.total() - len(self._times)
        return joined_mistakes([*shown, *self._others], count=self._count - repeated)


def check_ceiling(
    failed: Iterable[str] | Failures,
    total: int,
    what: str,
    most_share: float,
    most_rows: int | None,
    count: int | None = None,
    hint: str | None = None,
) -> None:
    """Raises `UserError` that lists the first `failed` rows if there are too many of them.

    Args:
        failed: The failed rows, or a line `<name>: <cause>` for each.
        total: Number of rows.
        what: What happened to the rows, for the message ("rows cannot be used").
        most_share: Maximum share of failed rows. If it is 0 and `most_rows` is set, only `most_rows`
            applies.
        most_rows: Maximum number of failed rows, or None.
        count: Number of failed rows, if a line of `failed` stands for several.
        hint: The likely cause, instead of the hint on how to raise the limit.
    """
    failures = failed if isinstance(failed, Failures) else Failures(failed)
    number = len(failures) if count is None else count
    limit = exceeded(number, total, most_share, most_rows)
    if limit is None:
        return
    raise UserError(
        f"{number} of {total} {what}, at most {limit} may fail\n  {failures.lines}",
        hint or ("`max_failed_share` and `max_failed_rows` of its block set this limit" if number < total else None),
    )


def exceeded(number: int, total: int, most_share: float, most_rows: int | None) -> str | None:
    """The limit that `number` of `total` rows exceed, as text; None if they exceed none."""
    if number > exact_share(most_share, total) and (most_rows is None or most_share > 0):
        return f"a share of {most_share:g}"
    if most_rows is not None and number > most_rows:
        return f"{most_rows} row" + ("" if most_rows == 1 else "s")
    return None
