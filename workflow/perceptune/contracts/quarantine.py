"""How many rows may fail before a stage stops."""

from __future__ import annotations

from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.shares import exact_share


def check_ceiling(
    failed: list[str],
    total: int,
    what: str,
    most_share: float,
    most_rows: int | None,
    count: int | None = None,
    hint: str | None = None,
) -> None:
    """Raises `UserError` that lists the first `failed` rows if there are too many of them.

    Args:
        failed: A line `<name>: <cause>` per failed row.
        total: Number of rows.
        what: What happened to the rows, for the message ("rows cannot be used").
        most_share: Maximum share of failed rows. If it is 0 and `most_rows` is set, only `most_rows`
            applies.
        most_rows: Maximum number of failed rows, or None.
        count: Number of failed rows, if a line of `failed` stands for several.
        hint: The likely cause, instead of the hint on how to raise the limit.
    """
    number = len(failed) if count is None else count
    limit = exceeded(number, total, most_share, most_rows)
    if limit is None:
        return
    raise UserError(
        f"{number} of {total} {what}, at most {limit} may fail\n  " + joined_mistakes(_one_of_each_first(failed)),
        hint or ("`max_failed_share` and `max_failed_rows` of its block set this limit" if number < total else None),
    )


def exceeded(number: int, total: int, most_share: float, most_rows: int | None) -> str | None:
    """The limit that `number` of `total` rows exceed, as text; None if they exceed none."""
    if number > exact_share(most_share, total) and (most_rows is None or most_share > 0):
        return f"a share of {most_share:g}"
    if most_rows is not None and number > most_rows:
        return f"{most_rows} row" + ("" if most_rows == 1 else "s")
    return None


def _one_of_each_first(failed: list[str]) -> list[str]:
    """The rows, reordered so that the first of each cause leads: one missing image fails many
    rows."""
    first = {cause: row for row in reversed(failed) if (cause := row.partition(": ")[2])}
    named = set(first.values())
    return [row for row in failed if row in named] + [row for row in failed if row not in named]
