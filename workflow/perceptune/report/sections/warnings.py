"""Warnings about training that can hardly have learned anything, and tests that can hardly show it.

They appear above the results on the page and in the text table, where such results would look like
any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from perceptune.report.results import Result
from perceptune.report.sections.rounds import Rounds, cumulative, trained_once

FEW_STEPS = 10
"""Training with fewer optimizer steps than this is reported."""
FEW_GROUPS = 10
"""A selection that keeps fewer groups than this is reported."""
MOST_EQUAL = 0.9
"""A mean share of groups with equal rewards above this is reported."""

FEW_QUESTIONS = 30
"""A benchmark with fewer questions than this is reported."""


def warnings(
    training: pl.DataFrame | None,
    statistics: Mapping[str, Mapping[str, Any]],
    rounds: Sequence[Rounds],
    results: Sequence[Result] = (),
) -> list[str]:
    """One sentence per problem; empty if there are none.

    `training` is the log of all trained policies, or None; `statistics` maps selections to their
    statistics.
    """
    found = [*_selections(statistics), *_questions(results)]
    return found if training is None else [*found, *_steps(training, rounds), *_equal_rewards(training)]


def _selections(statistics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for label, values in statistics.items():
        kept = int(values.get("kept", 0))
        if kept < FEW_GROUPS:
            total = kept + sum(int(count) for count in (values.get("dropped") or {}).values())
            yield f"{label}: only {kept} of {total} groups to train on"


def _questions(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.questions < FEW_QUESTIONS:
            asked = "a single question" if result.questions == 1 else f"only {result.questions} questions"
            yield f"{result.benchmark} / {result.task}: {asked}, too few to tell policies apart"


def _steps(training: pl.DataFrame, rounds: Sequence[Rounds]) -> Iterator[str]:
    once = trained_once(training, rounds)
    in_rounds = cumulative(training.filter(~pl.col("experiment").is_in(once["experiment"].unique().to_list())))[0]
    for logs in (once, in_rounds):
        taken = logs.group_by("experiment", maintain_order=True).agg(pl.col("step").max())
        for experiment, steps in taken.iter_rows():
            if steps < FEW_STEPS:
                counted = "a single optimizer step" if steps == 1 else f"only {steps:g} optimizer steps"
                yield f"{experiment} was trained for {counted}"


def _equal_rewards(training: pl.DataFrame) -> Iterator[str]:
    shares = training.filter(pl.col("metric") == "zero_variance", pl.col("value").is_finite())
    for policy, share in shares.group_by("experiment", maintain_order=True).agg(pl.col("value").mean()).iter_rows():
        if share > MOST_EQUAL:
            yield f"{policy}: {share:.0%} of the groups had equal rewards, which teach nothing"
