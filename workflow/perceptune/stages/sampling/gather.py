"""Merges the shards of a policy's answers, in the order of the requests."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES


def run(*, requests: Path, shards: list[Path], responses: Path, journal: Path) -> None:
    """Writes `responses` and removes the `journal`.

    Raises `ValueError` unless every request has exactly n answers.
    """
    requested = pl.DataFrame(pl.from_arrow(read_table(requests, REQUESTS).select(["request_id", "n"]))).with_row_index(
        "order"
    )
    answered = pl.concat([pl.DataFrame(pl.from_arrow(read_table(shard, RESPONSES))) for shard in shards])
    counts = requested.join(answered.group_by("request_id").len("found"), "request_id", "full", coalesce=True)
    wrong = counts.filter(pl.col("found").fill_null(0) != pl.col("n").fill_null(0))
    if wrong.height:
        request, expected, found = wrong.select("request_id", "n", "found").row(0)
        raise ValueError(
            f"request `{request}` has {found or 0} answers, expected {expected}; {wrong.height} such requests"
        )
    ordered = (
        answered.join(requested, "request_id", "left").sort("order", "sample_index").select(RESPONSES.schema.names)
    )
    made = read_lineage(shards[0])
    parameters = {k: v for k, v in made.get("parameters", {}).items() if k != "shard"} | {"shards": len(shards)}
    write_table(responses, RESPONSES, ordered, {**made, "parameters": parameters})
    shutil.rmtree(journal, ignore_errors=True)
