"""Readers of the report's input files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.table import Table
from perceptune.contracts.tables.terms import TERMS
from perceptune.report.gallery import visible
from perceptune.report.sections.rounds import Rounds
from perceptune.report.sections.verdicts import Controlled
from perceptune.stages.training.round_status import Ending


@dataclass(frozen=True)
class RoundsOf:
    """Input files of an experiment that trains in rounds, as listed by `planning`."""

    policies: Mapping[int, str]
    """Evaluated round number to policy, in order."""
    marks: Path
    """Status file of the last round, see `stages.training.round_status`."""


SHOWN_COLUMNS = ("example_id", "question", "image_sha256", "target", "box")
"""Columns of the examples table that galleries show."""
PAIR_KEYS = {"groups", "kept", "limits", "context", "kinds", "strength"}


def frame(path: Path, kind: Table) -> pl.DataFrame:
    """The table at `path`; raises `UserError` if it is not a table of this kind."""
    table = pl.from_arrow(read_table(path, kind))
    assert isinstance(table, pl.DataFrame)
    return table


def rows_of(
    table: pl.LazyFrame | None, ids: Sequence[str], key: str = "example_id", columns: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """`key` to row, for the rows whose `key` is in `ids`, with these columns (default: all); empty
    without a table."""
    if table is None:
        return {}
    rows = table.filter(pl.col(key).is_in(list(ids))).select(columns or pl.all())
    return {row[key]: row for row in rows.collect(engine="streaming").to_dicts()}


def selection_statistics(path: Path) -> dict[str, Any]:
    """The statistics of a selection; raises `UserError` if the file is not a JSON object."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as invalid:
        message = f"`{path}`: {invalid}, expected the statistics of a selection"
        raise UserError(message, "delete the file and rerun") from None


def controlled_of(
    controls: Mapping[str, Path], benchmarks: Mapping[str, BenchmarkBlock], no_counterpart: Mapping[str, str]
) -> Controlled | None:
    """The control comparisons of all policies; None without controls."""
    if not controls:
        return None
    table = pl.concat([frame(path, CONTROLS) for path in controls.values()])
    prompts = {name: (block.prompt, *block.prompts) for name, block in benchmarks.items()}
    return Controlled(table, prompts, no_counterpart)


def pair_statistics(path: Path) -> dict[str, Any]:
    """The statistics of the pair filter; raises `UserError` if keys are missing."""
    found = selection_statistics(path)
    if missing := PAIR_KEYS - set(found):
        names = ", ".join(f"`{name}`" for name in sorted(missing))
        raise UserError(f"`{path}`: no {names}, expected the statistics of a pair filter", "delete the file and rerun")
    return found


def implicit_preferences(terms: Path) -> list[float]:
    """IPS of each list in a table of stored log-probs: log pi_ref of the best minus the worst answer.

    Log-probs are summed over tokens. `terms` has one term and view; its lists have the best answer
    first.
    """
    found = frame(terms, TERMS)["logprobs"].cast(pl.List(pl.List(pl.Float64)))
    best, worst = (part.list.sum() for part in (found.list.first(), found.list.last()))
    return (best - worst).to_list()


def rounds_of(rounds: Mapping[str, RoundsOf]) -> list[Rounds]:
    """The experiments that train in rounds; raises `UserError` for a broken status file."""
    found = []
    for experiment, files in rounds.items():
        status = Ending.read(files.marks)
        stop = status.stopped
        stopped = None if stop is None else (stop.round, visible(stop.reason, 300))
        policies = {int(number): policy for number, policy in files.policies.items()}
        found.append(Rounds(experiment, policies, status.round, stopped))
    return found
