"""The requests behind responses, with the ground truth of their examples."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.core.data.source_columns import Columns, LazyColumns
from perceptune.stages.data.examples import Examples

REQUESTED = ("request_id", "dataset", "benchmark", "condition", "example_id")
TRUTH = ("example_id", "task", "target", "box", "image_sizes")


class Asked:
    """The requests with the ground truth of their examples, one row each.

    Messages and images are not read, and source columns only once they are used.
    """

    def __init__(self, requests: Path, examples: dict[str, Path]) -> None:
        """Raises `UserError` if a file cannot be read."""
        self._requests, self._examples = requests, {name: Examples(path) for name, path in examples.items()}
        asked = pl.DataFrame(pl.from_arrow(read_table(requests, REQUESTS, REQUESTED)))
        truth = pl.concat(
            pl.DataFrame(pl.from_arrow(table.table(TRUTH))).with_columns(dataset=pl.lit(name))
            for name, table in self._examples.items()
        )
        self.table = asked.join(truth, ["dataset", "example_id"], "left", validate="m:1", maintain_order="left")
        self._places = {request: place for place, request in enumerate(asked["request_id"].to_list())}

    def join(self, responses: pl.DataFrame) -> pl.DataFrame:
        """Adds the columns of their requests to `responses`. Raises `UserError` if one is missing."""
        runs = responses["request_id"].rle().struct.unnest()  # the answers to a request follow each other
        try:
            places = [self._places[request] for request in runs["value"].to_list()]
        except KeyError as missing:
            raise UserError(f"`{self._requests}` has no request `{missing.args[0]}`, which has responses") from None
        asked = self.table[np.repeat(np.array(places, dtype=int), runs["len"])]
        return pl.concat([responses, asked.drop("request_id", "example_id")], how="horizontal")

    def sources(self, part: pl.DataFrame) -> LazyColumns:
        """The source columns of the rows of a table that `join` returned."""
        return LazyColumns(
            part.height,
            lambda: [
                Columns(example, self._sources[dataset, example])
                for dataset, example in part.select("dataset", "example_id").iter_rows()
            ],
        )

    @cached_property
    def _sources(self) -> dict[tuple[str, str], str | None]:
        found: dict[tuple[str, str], str | None] = {}
        for name, table in self._examples.items():
            ids, texts = table.table(["example_id", "source"]).columns
            found |= zip(((name, one) for one in ids.to_pylist()), texts.to_pylist(), strict=True)
        return found
