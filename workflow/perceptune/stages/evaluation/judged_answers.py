"""Scored answers with their question, its source columns and the judge's verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.table import Table
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.data.source_columns import Columns
from perceptune.stages.data.examples import Examples

ANSWER = ["request_id", "sample_index"]
READ = ("target", "parsed", "answer")
"""Columns of the rewards table that an `Answered` needs, in addition to `MEASURED`."""
RESPONSE = "text"
"""The column that it needs for a judge that reads the whole response."""


class Questions:
    """Questions of an `examples` table with their source columns, parsed once each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[str, Columns]] = {}

    def of(self, ids: pl.Series) -> Mapping[str, tuple[str, Columns]]:
        """Id to question and source columns, of these examples at least."""
        wanted = set(ids) - self._known.keys()
        if wanted:
            rows = Examples(self._path).table(["example_id", "question", "source"], wanted).to_pylist()
            self._known |= {r["example_id"]: (r["question"], Columns(r["example_id"], r["source"])) for r in rows}
        return self._known


def with_verdicts(rewards: pl.DataFrame, verdicts: Path | None) -> pl.DataFrame:
    """`rewards` in order, with the column `verdict`.

    `verdicts` is the table of the judge's verdicts, None without a judge; an answer without a row
    there has no verdict.
    """
    if verdicts is None:
        return rewards.with_columns(verdict=pl.lit(None, dtype=pl.String))
    table = pl.DataFrame(pl.from_arrow(read_table(verdicts, VERDICTS, [*ANSWER, "text"]))).rename({"text": "verdict"})
    return rewards.join(table, ANSWER, "left", validate="1:1", maintain_order="left")


def answered(rows: pl.DataFrame, questions: Questions) -> list[Answered]:
    """The rows of `with_verdicts` in order, each with its example.

    A response whose reasoning never ends counts as a missing answer.
    """
    known = questions.of(rows["example_id"])
    return [_from_row(row, *known[row["example_id"]]) for row in rows.iter_rows(named=True)]


def judged_by(judge: str, verdicts: Path, kind: Table = VERDICTS) -> str:
    """The judge's name in the config, and the model names that its endpoint reports, by the column `model`
    of a table."""
    models = sorted(read_table(verdicts, kind, ["model"])["model"].unique().drop_null().to_pylist())
    return f"{judge}: {', '.join(models) or 'no answer'}"


def _from_row(row: dict[str, Any], question: str, source: Columns) -> Answered:
    missing = row["answer"] is None
    return Answered(
        example_id=row["example_id"],
        task=row["task"],
        question=question,
        text=row["answer"],
        target=row["target"],
        parsed=None if row["parsed"] is None else json.loads(row["parsed"]),
        components={} if missing else {k: v for k, v in row["components"].items() if v is not None},
        reason=row["reason"],
        source=source,
        response=row.get(RESPONSE),
        verdict=row["verdict"],
    )
