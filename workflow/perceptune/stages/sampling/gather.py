"""Merges the shards of a policy's answers, in the order of the requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from perceptune.contracts.errors import UserError
from perceptune.contracts.quarantine import Failures
from perceptune.contracts.tables.io import read_batches, read_lineage, table_writer
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES

ROWS = 1024
"""Requests in memory at once."""


def run(*, requests: Path, shards: list[Path], responses: Path, journal: Path) -> None:
    """Writes `responses` and removes the `journal`.

    Every shard has its answers in the order of the requests. Raises `UserError` if no request could be
    sampled, and `ValueError` unless every request has exactly n rows.
    """
    parts = [_Shard(path) for path in shards]
    made = read_lineage(shards[0])
    parameters = {k: v for k, v in made.get("parameters", {}).items() if k != "shard"} | {"shards": len(shards)}
    failures, answered = Failures(), 0
    with table_writer(responses, RESPONSES) as table:
        for batch in read_batches(requests, REQUESTS, ["request_id", "n"], ROWS):
            requested = pl.DataFrame(pl.from_arrow(batch))
            expected = requested.with_columns(sample_index=pl.int_ranges("n", dtype=pl.Int32)).explode("sample_index")
            found = pl.concat(part.answers(requested["request_id"]) for part in parts)
            _check(requested, found)
            ordered = expected.join(found, ["request_id", "sample_index"], "left", maintain_order="left")
            table.write(ordered.select(RESPONSES.columns))
            missing = ordered.filter(pl.col("text").is_null())
            answered += ordered.height - missing.height
            for request, reason in missing.select("request_id", "reason").unique(maintain_order=True).iter_rows():
                failures.add(f"request `{request}`: {reason}")
        for part in parts:
            part.check_ended()
        if failures and not answered:
            raise UserError(f"no request could be sampled\n  {failures.lines}")
        table.lineage = {**made, "parameters": parameters}
    shutil.rmtree(journal, ignore_errors=True)


class _Shard:
    """The answers of a shard, read in order."""

    def __init__(self, path: Path) -> None:
        self._batches: Iterator[pa.Table] = read_batches(path, RESPONSES, RESPONSES.columns)
        self._rest = pl.DataFrame(pl.from_arrow(RESPONSES.schema.empty_table()))

    def answers(self, requests: pl.Series) -> pl.DataFrame:
        """The next rows, as long as they belong to these requests."""
        taken = []
        while True:
            if not self._rest.height:
                batch = next(self._batches, None)
                if batch is None:
                    break
                self._rest = pl.DataFrame(pl.from_arrow(batch))
            belong = self._rest["request_id"].is_in(requests.implode())
            end = self._rest.height if belong.all() else int((~belong).arg_max() or 0)
            taken.append(self._rest[:end])
            self._rest = self._rest[end:]
            if self._rest.height:
                break
        return pl.concat([self._rest.clear(), *taken])

    def check_ended(self) -> None:
        """Raises `ValueError` if there are answers left."""
        left = self._rest if self._rest.height else next(self._batches, None)
        if left is not None and len(left):
            raise ValueError(f"request `{left['request_id'][0]}` has answers that were not expected")


def _check(requested: pl.DataFrame, found: pl.DataFrame) -> None:
    """Raises `ValueError` unless every request has exactly n answers."""
    counts = requested.join(found.group_by("request_id").len("found"), "request_id", "left")
    wrong = counts.filter(pl.col("found").fill_null(0) != pl.col("n"))
    if wrong.height:
        request, expected, answers = wrong.select("request_id", "n", "found").row(0)
        raise ValueError(
            f"request `{request}` has {answers or 0} answers, expected {expected}; {wrong.height} such requests"
        )
