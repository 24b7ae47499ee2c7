"""Queries on preference groups and on examples. Pure functions of frames."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from perceptune.commands.inspect.answers import Bar, histogram
from perceptune.commands.inspect.filters import (
    ExampleFilter,
    GroupFilter,
    between,
    containing,
    counting,
    equal,
    in_order,
    with_reason,
)


@dataclass(frozen=True)
class Groups:
    """The groups that match a filter."""

    chosen: pl.DataFrame
    """row, group_id, example_id, task, view, kept, reason, count (of answers) and margin, in the wanted order."""
    margins: list[Bar]


def select_groups(frame: pl.LazyFrame, wanted: GroupFilter) -> Groups:
    """The groups that match.

    The margin is that of the group's pairs with the largest absolute value or, without pairs, the
    largest minus the smallest reward of its answers.
    """
    rewards = pl.col("responses").list.eval(pl.element().struct.field("reward"))
    texts = pl.col("responses").list.eval(pl.element().struct.field("text"))
    margins = pl.col("pairs").list.eval(pl.element().struct.field("margin"))
    largest = margins.list.eval(pl.element().sort_by(pl.element().abs(), nulls_last=True).drop_nulls().last())
    margin = (
        pl.when(pl.col("pairs").list.len() > 0)
        .then(largest.list.first())
        .otherwise(rewards.list.max() - rewards.list.min())
    )
    matching = equal(wanted, ("task", "view")) & with_reason(wanted.reason)
    if wanted.kept is not None:
        matching &= pl.col("kept") == (wanted.kept == "yes")
    if wanted.text is not None:
        matching &= containing(wanted.text, "texts")
    found = (
        frame.with_row_index("row")
        .with_columns(
            count=pl.col("responses").list.len(), margin=margin, texts=texts.list.join("\n", ignore_nulls=True)
        )
        .filter(matching)
        .select("row", "group_id", "example_id", "task", "view", "kept", "reason", "count", "margin")
        .collect()
    )
    chosen = found.filter(between("margin", wanted.margin_min, wanted.margin_below))
    return Groups(in_order(chosen, wanted.sort), histogram(found["margin"]))


@dataclass(frozen=True)
class ExampleList:
    """The examples that match a filter."""

    chosen: pl.DataFrame
    """`row`, and mean `reward` and `margin` of the answers to the example, in the wanted order."""
    rewards: list[Bar]
    margins: list[Bar]


def select_examples(frame: pl.LazyFrame, wanted: ExampleFilter, answers: pl.LazyFrame | None = None) -> ExampleList:
    """The examples that match, quarantined ones included. Texts are questions and ground truths.

    `answers` are those to the examples of this table. The margin is the largest minus the smallest
    reward of an example's answers; a single answer has none.
    """
    text = (
        pl.lit(True) if wanted.text is None else containing(wanted.text, "question") | containing(wanted.text, "target")
    )
    matching = equal(wanted, ("task", "split")) & with_reason(wanted.reason) & text
    by = wanted.sort.removeprefix("-")
    more = (
        [pl.col("question").alias("text")]
        if by == "text"
        else [pl.col(by)]
        if by in ("task", "split", "reason")
        else []
    )
    found = frame.with_row_index("row").filter(matching).select("row", "example_id", *more)
    if answers is None:
        none = pl.lit(None, pl.Float64)
        found = found.with_columns(reward=none, margin=none)
    else:
        reward = pl.col("reward")
        scored = (
            answers.filter(equal(wanted, ("condition",)) & counting(wanted, ("view",)))
            .group_by("example_id")
            .agg(reward=reward.mean(), margin=pl.when(pl.len() > 1).then(reward.max() - reward.min()))
        )
        found = found.join(scored, on="example_id", how="left", maintain_order="left")
    rows = found.collect()
    rewarded = between("reward", wanted.reward_min, wanted.reward_below)
    spread = between("margin", wanted.margin_min, wanted.margin_below)
    chosen = in_order(rows.filter(rewarded & spread), wanted.sort)
    return ExampleList(
        chosen.select("row", "reward", "margin"),
        histogram(rows.filter(spread)["reward"]),
        histogram(rows.filter(rewarded)["margin"]),
    )
