"""What an example brings besides our own columns, as rewards and benchmarks look at it."""

from __future__ import annotations

import json
from typing import Any

from perceptune.contracts.errors import UserError


class Columns(dict[str, Any]):
    """The columns that an example brings besides ours; a `UserError` says which one a benchmark looks for in vain."""

    def __init__(self, example_id: str, source: str | None) -> None:
        super().__init__(json.loads(source or "{}"))
        self._example_id = example_id

    def __missing__(self, key: str) -> Any:
        raise UserError(
            f"example `{self._example_id}` has no `{key}`, which the benchmark's protocol or reward reads",
            "the dataset's `kind` is that of the published benchmark, or its rows have the same columns",
        )
