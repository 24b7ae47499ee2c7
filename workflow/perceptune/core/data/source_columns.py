"""An example's source columns (those that perceptune does not define), for rewards and benchmarks."""

from __future__ import annotations

import json
from typing import Any

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
