"""An example's source columns (those that perceptune does not define), for rewards and benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, overload

from perceptune.contracts.errors import UserError


class Columns(dict[str, Any]):
    """The source columns of an example. Raises `UserError` for a column that is missing."""

    def __init__(self, example_id: str, source: str | None) -> None:
        super().__init__(json.loads(source or "{}"))
        self._example_id = example_id

    def __missing__(self, key: str) -> Any:
        raise UserError(
            f"example `{self._example_id}` has no column `{key}`, which the benchmark's protocol or reward reads",
            "set the dataset's `kind` to that of the published benchmark, or add the column to its rows",
        )


class LazyColumns(Sequence[Columns]):
    """The source columns of some answers, which are read and parsed at first use."""

    def __init__(self, count: int, read: Callable[[], list[Columns]]) -> None:
        """`read` returns the columns of all `count` answers."""
        self._count, self._read = count, read

    @cached_property
    def _columns(self) -> list[Columns]:
        return self._read()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Columns: ...
    @overload
    def __getitem__(self, place: slice) -> list[Columns]: ...
    def __getitem__(self, place: int | slice) -> Columns | list[Columns]:
        return self._columns[place]
