"""Counts the images and questions that training data share with the benchmarks of their experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perceptune.contracts.config import Leakage
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.leakage import LEAKAGE
from perceptune.core.data.leakage import leakage as leakage_between
from perceptune.stages.data.examples import Examples
from perceptune.stages.data.leaked import leaks, sentence

COLUMNS = ("example_id", "question", "image_sha256", "image_hashes")


@dataclass(frozen=True)
class Selection:
    """Questions of a dataset, as a block selects them."""

    dataset: str
    split: str
    tasks: tuple[str, ...] = ()
    limit: int | None = None


def run(
    *,
    dataset: str,
    source: str,
    examples: dict[str, Path],
    training: Selection,
    benchmarks: dict[str, Selection],
    leakage: Path,
    mode: Leakage = "warn",
) -> None:
    """Writes `leakage`: one row per benchmark, compared with the `training` questions.

    `examples` are by dataset. Prints a warning per benchmark that shares something, unless `mode` is
    `allow`. Blocks that select nothing have nothing in common: the jobs that use them report them.
    """
    trained_on = _selected(examples, training)
    rows = [
        {"benchmark": name, **_row(trained_on, _selected(examples, benchmark))}
        for name, benchmark in benchmarks.items()
    ]
    parameters = {"training": asdict(training), "benchmarks": {name: asdict(one) for name, one in benchmarks.items()}}
    write_table(leakage, LEAKAGE, rows, lineage("data.find_leakage", parameters, examples))
    for leak in leaks({f"{dataset}/{source}": leakage}):
        print(("" if mode == "allow" else "warning: ") + sentence(*leak))


def _selected(examples: Mapping[str, Path], of: Selection) -> list[dict[str, Any]]:
    return Examples(examples[of.dataset]).selected(of.split, of.tasks, of.limit, COLUMNS)


def _row(training: list[dict[str, Any]], benchmark: list[dict[str, Any]]) -> dict[str, Any]:
    found = leakage_between(training, benchmark)
    return {**found._asdict(), "examples": [shared._asdict() for shared in found.examples]}
