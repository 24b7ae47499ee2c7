"""How many rows may fail before a stage stops."""

from __future__ import annotations

from perceptune.contracts.errors import UserError, joined_mistakes


def check_ceiling(
    failed: list[str],
    total: int,
    what: str,
    most_share: float,
    most_rows: int | None,
    count: int | None = None,
    hint: str | None = None,
) -> None:
    """Raises `UserError` naming the first of the `failed` rows when they are more than the share or the number allowed.

    Where the share is 0, a number that is given decides alone.
    `what` says what happened to them ("rows cannot be used"); `count`: how many failed, if `failed` has one line for several;
    `hint`: the likely cause, where there is a better hint than how to let them fail.
    """
    number = len(failed) if count is None else count
    if number > most_share * total and (most_rows is None or most_share > 0):
        limit = f"a share of {most_share:g}"
    elif most_rows is not None and number > most_rows:
        limit = f"{most_rows} row" + ("" if most_rows == 1 else "s")
    else:
        return
    raise UserError(
        f"{number} of {total} {what}, at most {limit} may fail\n  " + joined_mistakes(_one_of_each_first(failed)),
        hint
        or (
            "`max_failed_share` (share) and `max_failed_rows` (count) of its block say how many may"
            if number < total
            else None
        ),
    )


def _one_of_each_first(failed: list[str]) -> list[str]:
    """The rows (`name: cause`) with the first of each cause before the others: one lacking image fails many questions."""
    first = {cause: row for row in reversed(failed) if (cause := row.partition(": ")[2])}
    named = set(first.values())
    return [row for row in failed if row in named] + [row for row in failed if row not in named]
