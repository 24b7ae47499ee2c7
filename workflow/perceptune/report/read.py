"""What the report reads."""

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
from perceptune.report.gallery import visible
from perceptune.report.sections.rounds import Rounds
from perceptune.report.sections.verdicts import Controlled
from perceptune.stages.training.round_status import Ending


@dataclass(frozen=True)
class RoundsOf:
    """An experiment that learns in rounds, as `planning` describes it."""

    policies: Mapping[int, str]
    """Evaluated round to its policy, in order."""
    marks: Path
    """How the last round went (`stages.rounds.Ending`)."""


SHOWN_COLUMNS = ("example_id", "question", "image_sha256", "target", "box")
"""What galleries tell of an example."""
PAIR_KEYS = {"groups", "kept", "limits", "context", "kinds", "strength"}


def frame(path: Path, kind: Table) -> pl.DataFrame:
    table = pl.from_arrow(read_table(path, kind))
    assert isinstance(table, pl.DataFrame)
    return table


def rows_of(path: Path | None, kind: Table, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    rows = frame(path, kind).filter(pl.col("example_id").is_in(list(ids)))
    return {row["example_id"]: row for row in rows.to_dicts()}


def selection_statistics(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as invalid:
        raise UserError(f"`{path}` holds no statistics of a selection: {invalid}", "delete it and run again") from None


def controlled_of(
    controls: Mapping[str, Path], benchmarks: Mapping[str, BenchmarkBlock], twinless: Mapping[str, str]
) -> Controlled | None:
    """What is known of the controls, see `core.explanations`; None without any."""
    if not controls:
        return None
    table = pl.concat([frame(path, CONTROLS) for path in controls.values()])
    prompts = {name: (block.prompt, *block.prompts) for name, block in benchmarks.items()}
    return Controlled(table, prompts, twinless)


def pair_statistics(path: Path) -> dict[str, Any]:
    """What the filter counted; a `UserError` names a file that holds something else."""
    found = selection_statistics(path)
    if missing := PAIR_KEYS - set(found):
        raise UserError(f"`{path}` holds no statistics of pairs: no {sorted(missing)}", "delete it and run again")
    return found


def rounds_of(rounds: Mapping[str, RoundsOf]) -> list[Rounds]:
    """The experiments with rounds and what became of them; a `UserError` names a file that does not say it."""
    found = []
    for experiment, told in rounds.items():
        ending = Ending.read(told.marks)
        stop = ending.stopped
        stopped = None if stop is None else (stop.round, visible(stop.reason, 300))
        policies = {int(number): policy for number, policy in told.policies.items()}
        found.append(Rounds(experiment, policies, ending.round, stopped))
    return found
