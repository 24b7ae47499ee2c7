"""Warnings about training that can hardly have learned anything, and tests that can hardly show it.

They appear above the results on the page and in the text table, where such results would look like
any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from perceptune.report.results import FEW_QUESTIONS, MANY, Result
from perceptune.report.sections.rounds import Rounds, cumulative, trained_once

FEW_STEPS = 10
"""Training with fewer optimizer steps than this is reported."""
FEW_GROUPS = 10
"""A selection that keeps fewer groups than this is reported."""
MOST_EQUAL = 0.9
"""A mean share of groups with equal rewards above this is reported."""
MOST_UNREADABLE = 0.5
"""A share of answers that cannot be parsed above this is reported."""
SMALL_CROP = 0.01
"""Crops whose median share of the image area is below this are reported."""


def warnings(
    training: pl.DataFrame | None,
    statistics: Mapping[str, Mapping[str, Any]],
    rounds: Sequence[Rounds],
    results: Sequence[Result] = (),
    pairs: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """One sentence per problem; empty if there are none.

    `training` is the log of all trained policies, or None; `statistics` maps selections to their
    statistics, and `pairs` the filters of generated pairs.
    """
    found = [*_selections({**statistics, **(pairs or {})}), *_crops(pairs or {})]
    if training is not None:
        found += [*_steps(training, rounds), *_equal_rewards(training)]
    return [*found, *_questions(results), *_unreadable(results)]


def _selections(statistics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for label, values in statistics.items():
        kept = int(values.get("kept", 0))
        if kept < FEW_GROUPS:
            total = kept + sum(int(count) for count in (values.get("dropped") or {}).values())
            yield f"{label}: only {kept} of {total} groups to train on"


def _crops(pairs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for label, values in pairs.items():
        crop = values["strength"].get("enhanced")
        if crop and crop["median"] < SMALL_CROP:
            yield (
                f"{label}: half of the crops cover {100 * crop['median']:.2g} % of the image or less; "
                "`base` of the `crops` block, in pixels, is small for these images"
            )


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


def _questions(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.questions < FEW_QUESTIONS:
            asked = "a single question" if result.questions == 1 else f"only {result.questions} questions"
            yield f"{result.name}: {asked}, too few to tell policies apart"


def _unreadable(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        asked = {p: max(int(row["n"]) for row in cells.values()) for p, cells in result.rows.items()}
        shares = {p: result.failed(p) / n for p, n in asked.items() if n}
        several = {p: share for p, share in shares.items() if share > MOST_UNREADABLE}
        if several:
            named = [f"{p} ({'all' if share == 1 else f'{share:.0%}'})" for p, share in several.items()]
            listed = ", ".join(named) if len(named) <= MANY else f"{len(named)} of {len(shares)} policies"
            yield f"{result.name}: answers that cannot be read: {listed}; check the prompt and the reward"
