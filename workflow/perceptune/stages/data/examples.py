"""Reader of `examples` tables: only the requested columns and rows, without images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table

COLUMNS = tuple(name for name in EXAMPLES.schema.names if name not in ("images", "image_hashes"))


class Examples:
    """The usable rows of an `examples` table, without quarantined rows, read on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, columns: Sequence[str] = COLUMNS, ids: Iterable[str] | None = None) -> pa.Table:
        """Columns of the rows with these ids (default: all rows), in the table's order.

        Raises `UserError` if the file is missing or not an `examples` table.
        """
        found = read_table(self.path, EXAMPLES, list(dict.fromkeys([*columns, "example_id", "reason"])))
        mask = pc.is_null(found["reason"])
        if ids is not None:
            mask = pc.and_(mask, pc.is_in(found["example_id"], pa.array(list(ids), pa.string())))
        return found.filter(mask).select(list(columns))

    def rows(self, ids: Iterable[str] | None = None, columns: Sequence[str] = COLUMNS) -> dict[str, dict[str, Any]]:
        """Id to row, as in `table`."""
        found = self.table(list(dict.fromkeys([*columns, "example_id"])), ids)
        names = found["example_id"].to_pylist()
        return dict(zip(names, found.select(list(columns)).to_pylist(), strict=True))

    def selected(
        self, split: str, tasks: Sequence[str], limit: int | None, columns: Sequence[str] = COLUMNS
    ) -> list[dict[str, Any]]:
        """The rows of a split and of these tasks (empty: all), at most `limit` per task, in the table's
        order."""
        found = self.table(list(dict.fromkeys([*columns, "split", "task"])))
        found = found.filter(pc.equal(found["split"], split))
        taken: Counter[str] = Counter()
        places = []
        for place, task in enumerate(found["task"].to_pylist()):
            if tasks and task not in tasks:
                continue
            taken[task] += 1
            if limit is None or taken[task] <= limit:
                places.append(place)
        return found.select(list(columns)).take(pa.array(places, pa.int64())).to_pylist()
