"""Which split of a dataset is for training, and which one for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from perceptune.contracts.errors import UserError, listed
from perceptune.core.data.row_checks import one_line

TRAINING = ("train", "tr", "trn")
"""What the name of a split for training is or, the first one, begins with; in any case."""
TESTS = ("test", "val", "dev", "eval", "holdout", "held")
"""How names of splits for tests begin, in any case, the best first."""


class Roles(NamedTuple):
    """The splits for training and for tests."""

    train: str
    test: str | None
    """None if there is no other split."""


def roles(splits: Sequence[str], path: object, *, tested: bool = True) -> Roles:
    """The roles of the splits in the data `path`. `tested`: whether one of them is for tests.

    Of several that are named alike, a plain name is preferred, such as `train` to `trainval`. A single
    split without a known name takes the role that is left. Raises `UserError` if that is not clear, or
    if names differ only in case.
    """
    _check_case(splits, path)
    train = min((one for one in splits if is_training(one)), key=lambda one: (len(one), one), default=None)
    tests = test_splits(splits)
    unknown = [one for one in splits if not is_training(one) and one not in tests]
    if train is None and len(unknown) != 1 and (unknown or not tests):
        raise _unclear(unknown, path, "training")
    if train is None:
        train = unknown[0] if unknown else tests[-1]
        rest = [one for one in tests if one != train]
        return Roles(train, rest[0] if rest else None)
    if tested and not tests and len(unknown) > 1:
        raise _unclear(unknown, path, "tests")
    return Roles(train, next(iter([*tests, *unknown]), None))


def is_training(split: str) -> bool:
    """Whether a split is named like one for training."""
    return split.lower().startswith(TRAINING[0]) or split.lower() in TRAINING


def test_splits(splits: Sequence[str]) -> list[str]:
    """Those that are named like ones for tests, the best first."""
    return [
        one
        for name in TESTS
        for one in sorted(splits, key=lambda split: (len(split), split))
        if one.lower().startswith(name)
    ]


def _check_case(splits: Sequence[str], path: object) -> None:
    seen: dict[str, str] = {}
    for one in splits:
        if (first := seen.setdefault(one.lower(), one)) != one:
            raise UserError(
                f"data `{path}` has the splits `{one_line(first)}` and `{one_line(one)}`, expected one spelling",
                "write the same name in all rows",
            )


def _unclear(splits: Sequence[str], path: object, role: str) -> UserError:
    return UserError(
        f"data `{path}` has the splits {listed(map(one_line, splits[:10]))}, none of which is named like one for {role}",
        "call them `train` and `test`",
    )
