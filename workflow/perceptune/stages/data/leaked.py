"""What training data share with benchmarks, as sentences, and the refusal to train on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from perceptune.contracts.config import Leakage
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.leakage import LEAKAGE

SHOWN = 3
"""Number of examples that an error names."""


def leaks(tables: Mapping[str, Path], benchmarks: Collection[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Name of training data and row of its `leakage` table, for all that share something.

    `tables` are by name of the training data; `benchmarks` selects rows, by default all.
    """
    return [
        (name, row)
        for name, path in tables.items()
        for row in read_table(path, LEAKAGE).to_pylist()
        if row["examples"] and (benchmarks is None or row["benchmark"] in benchmarks)
    ]


def sentence(training: str, row: Mapping[str, Any]) -> str:
    """How much training data share with a benchmark."""
    questions = row["same_questions"] + row["similar_questions"]
    similar = f", near duplicates of {row['similar_images']:,} more," if row["similar_images"] else ""
    return (
        f"training data {training} share {row['same_images']:,} of {row['images']:,} images{similar}"
        f" and {questions:,} of {row['questions']:,} questions with benchmark {row['benchmark']}"
    )


def leak_warnings(tables: Mapping[str, Path], leakage: Leakage, benchmarks: Collection[str] | None = None) -> list[str]:
    """A sentence per benchmark that shares something with training data; none with `allow`.

    Raises `UserError` with `refuse`.
    """
    if leakage == "refuse":
        refuse(tables, benchmarks)
    return [] if leakage == "allow" else [sentence(*leak) for leak in leaks(tables, benchmarks)]


def refuse(tables: Mapping[str, Path], benchmarks: Collection[str] | None = None) -> None:
    """Raises `UserError` with the counts and the first examples if anything is shared."""
    found = leaks(tables, benchmarks)
    if not found:
        return
    examples = [
        f"{shared['kind']}: `{shared['training_id']}` of {name}, `{shared['benchmark_id']}` of {row['benchmark']}"
        for name, row in found
        for shared in row["examples"]
    ]
    raise UserError(
        joined_mistakes([sentence(*leak) for leak in found]) + "\n  " + "\n  ".join(examples[:SHOWN]),
        "remove these examples from the training data, or set `leakage: warn` to train on them",
    )
