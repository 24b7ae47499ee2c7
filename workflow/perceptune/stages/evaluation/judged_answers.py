"""Scored answers with their question, its source columns and the judge's verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.data.source_columns import Columns
from perceptune.stages.data.examples import Examples

ANSWER = ["request_id", "sample_index"]


def with_verdicts(rewards: pl.DataFrame, examples: Path, verdicts: Path | None) -> list[Answered]:
    """The rows of `rewards` in order, each with its example from the table `examples`.

    `verdicts` is the table of the judge's verdicts, None without a judge; an answer without a row
    there has no verdict. A response whose reasoning never ends counts as a missing answer.
    """
    questions = pl.DataFrame(pl.from_arrow(Examples(examples).table(["example_id", "question", "source"])))
    joined = rewards.join(questions, "example_id", "left", validate="m:1", maintain_order="left")
    if verdicts is None:
        joined = joined.with_columns(verdict=pl.lit(None, dtype=pl.String))
    else:
        table = pl.DataFrame(pl.from_arrow(read_table(verdicts, VERDICTS).select([*ANSWER, "text"])))
        renamed = table.rename({"text": "verdict"})
        joined = joined.join(renamed, ANSWER, "left", validate="1:1", maintain_order="left")
    return [_from_row(row) for row in joined.iter_rows(named=True)]


def judged_by(judge: str, verdicts: Path) -> str:
    """The judge's name in the config, and the model names reported by its endpoint."""
    models = sorted(set(read_table(verdicts, VERDICTS)["model"].drop_null().to_pylist()))
    return f"{judge}: {', '.join(models) or 'no answer'}"


def _from_row(row: dict[str, Any]) -> Answered:
    return Answered(
        example_id=row["example_id"],
        task=row["task"],
        question=row["question"],
        text=row["answer"],
        target=row["target"],
        parsed=None if row["parsed"] is None else json.loads(row["parsed"]),
        components={} if row["answer"] is None else {c["name"]: c["value"] for c in row["components"]},
        reason=row["reason"],
        source=Columns(row["example_id"], row["source"]),
        verdict=row["verdict"],
    )
