"""Reader of `examples` tables: only the requested columns and rows, without images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import Rows, read_batches, read_table
from perceptune.contracts.tables.places import Places

COLUMNS = tuple(name for name in EXAMPLES.schema.names if name not in ("images", "image_hashes"))


class Examples:
    """The usable rows of an `examples` table, without quarantined rows, read on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._readers: dict[tuple[str, ...], Rows] = {}

    def row(self, example_id: str, columns: Sequence[str] = COLUMNS) -> dict[str, Any]:
        """One row, read when it is needed.

        Raises `KeyError` if no usable row has this id.
        """
        place, names = self._places[example_id], tuple(columns)
        if names not in self._readers:
            self._readers[names] = Rows(self.path, EXAMPLES, names)
        return self._readers[names][place]

    @cached_property
    def _places(self) -> Places:
        found = read_table(self.path, EXAMPLES, ["example_id", "reason"])
        usable = pc.is_null(found["reason"])
        return Places(found["example_id"].filter(usable), pc.indices_nonzero(usable))

    def table(self, columns: Sequence[str] = COLUMNS, ids: Iterable[str] | None = None) -> pa.Table:
        """Columns of the rows with these ids (default: all rows), in the table's order.

        Raises `UserError` if the file is missing or not an `examples` table.
        """
        asked = None if ids is None else pa.array(list(ids), pa.string())
        parts = [EXAMPLES.schema.empty_table().select(list(columns))]
        for part in read_batches(self.path, EXAMPLES, list(dict.fromkeys([*columns, "example_id", "reason"]))):
            mask = pc.is_null(part["reason"])
            if asked is not None:
                mask = pc.and_(mask, pc.is_in(part["example_id"], asked))
            parts.append(part.filter(mask).select(list(columns)))
        return pa.concat_tables(parts)

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
