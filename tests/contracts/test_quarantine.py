"""Errors about too many failed rows."""

import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.quarantine import check_ceiling


def test_every_cause_is_named_once() -> None:
    failed = [f"row {n}: image `{n // 4}.png`: the file does not exist" for n in range(12)]
    with pytest.raises(UserError) as stopped:
        check_ceiling([*failed, "row 12: broken"], 100, "rows cannot be used", 0, None)
    assert stopped.value.args[0].splitlines() == [
        "13 of 100 rows cannot be used, at most a share of 0 may fail",
        *(f"  row {4 * n}: image `{n}.png`: the file does not exist (4 times)" for n in range(3)),
        "  row 12: broken",
    ]


def test_causes_that_are_not_shown_are_counted() -> None:
    failed = [f"row {n}: cause {n % 7}" for n in range(70)]
    with pytest.raises(UserError) as stopped:
        check_ceiling(failed, 100, "rows cannot be used", 0, None)
    _, *lines = stopped.value.args[0].splitlines()
    assert lines == [*(f"  row {n}: cause {n} (10 times)" for n in range(5)), "  and 20 more"]


def test_rows_without_a_cause_keep_their_order() -> None:
    with pytest.raises(UserError, match=r"(?s)second.*first.*second"):
        check_ceiling(["second", "first", "second"], 3, "rows cannot be used", 0, None)


@pytest.mark.parametrize(
    ("failed", "share", "rows", "stops"),
    [
        (1, 0.1, None, False),
        (2, 0.1, None, True),
        (1, 0.1, 0, True),
        (2, 0.1, 5, True),
        (1, 0.0, 1, False),  # with a share of 0, only the number applies
        (2, 0.0, 1, True),
        (1, 0.0, 0, True),
        (1, 0.0, None, True),
    ],
)
def test_share_and_count_both_limit(failed: int, share: float, rows: int | None, stops: bool) -> None:
    given = [f"row {n}: broken" for n in range(failed)]
    if stops:
        with pytest.raises(UserError):
            check_ceiling(given, 10, "rows cannot be used", share, rows)
    else:
        check_ceiling(given, 10, "rows cannot be used", share, rows)


@pytest.mark.parametrize(("share", "total", "most"), [(0.29, 100, 29), (0.58, 50, 29), (0.07, 100, 7), (0.7, 90, 63)])
def test_a_share_counts_as_it_is_written(share: float, total: int, most: int) -> None:
    """0.29 * 100 is below 29 in floating point."""
    rows = [f"row {n}: broken" for n in range(most + 1)]
    check_ceiling(rows[:most], total, "rows cannot be used", share, None)
    with pytest.raises(UserError, match=f"{most + 1} of {total} rows"):
        check_ceiling(rows, total, "rows cannot be used", share, None)
