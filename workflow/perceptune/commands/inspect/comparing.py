"""Compares two policies on the same questions. Pure functions of frames with the columns of `REWARDS`."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from perceptune.commands.inspect.answers import Bar, differences
from perceptune.commands.inspect.filters import CompareFilter, between, containing, counting, equal, in_order

CHANGES = ("fixed", "broken", "both right", "both wrong")
"""What can happen to a question; the last two are unchanged."""


@dataclass(frozen=True)
class Comparison:
    """The questions that both policies answered."""

    chosen: pl.DataFrame
    """request_id, before, after (mean rewards), difference, change, and the rows `row_a` and `row_b` of the
    first answers; those that match the filter, in the wanted order."""
    counts: dict[str, int]
    """Change to the number of questions, before filtering by change."""
    mean_before: float | None
    mean_after: float | None
    differences: list[Bar]
    unpaired: int
    """Questions without a reward from both."""


def compare(a: pl.LazyFrame, b: pl.LazyFrame, wanted: CompareFilter) -> Comparison:
    """Policy `b` compared with policy `a`, question by question.

    A question is a request: an example under a view and a condition. Sampled answers to one question
    count as one, with their mean reward. A question is right if that is at least `wanted.right`.
    """
    together = _questions(a, wanted, "a").join(_questions(b, wanted, "b"), on="request_id", maintain_order="left")
    rows = together.collect()
    both = rows.filter(pl.col("before").is_finite() & pl.col("after").is_finite())
    unpaired = rows.height - both.height
    was, now = (pl.col(name) >= wanted.right for name in ("before", "after"))
    change = (
        pl.when(now & ~was)
        .then(pl.lit("fixed"))
        .when(was & ~now)
        .then(pl.lit("broken"))
        .when(was)
        .then(pl.lit("both right"))
        .otherwise(pl.lit("both wrong"))
    )
    both = both.with_columns(difference=pl.col("after") - pl.col("before"), change=change.cast(pl.Enum(CHANGES)))
    if wanted.text is not None:
        both = both.filter(containing(wanted.text, "text_a") | containing(wanted.text, "text_b"))
    counts = dict(both["change"].value_counts().rows())
    shown = both.filter(
        (pl.lit(True) if not wanted.change else pl.col("change") == wanted.change)
        & between("difference", wanted.change_min, wanted.change_below)
    )
    shown = in_order(shown, wanted.sort, {"change": "difference", "text": "text_b"})
    return Comparison(
        chosen=shown.select("request_id", "before", "after", "difference", "change", "row_a", "row_b"),
        counts={name: counts.get(name, 0) for name in CHANGES},
        mean_before=_mean(both["before"]),
        mean_after=_mean(both["after"]),
        differences=differences(both["difference"]),
        unpaired=unpaired,
    )


def _questions(answers: pl.LazyFrame, wanted: CompareFilter, side: str) -> pl.LazyFrame:
    """One row per request: request_id, mean reward, the row of the first answer, and what filter and order read."""
    reward = {"a": "before", "b": "after"}[side]
    columns = [pl.col("reward").mean().alias(reward), pl.col("row").first().alias(f"row_{side}")]
    if wanted.text is not None or wanted.sort.endswith("text"):
        columns.append(pl.col("text").first().alias(f"text_{side}"))
    columns += [pl.col(name).first() for name in ("task", "view") if side == "a" and wanted.sort.endswith(name)]
    matching = equal(wanted, ("benchmark", "task")) & counting(wanted)
    numbered = answers.with_row_index("row").filter(matching)
    return numbered.group_by("request_id", maintain_order=True).agg(columns)


def _mean(values: pl.Series) -> float | None:
    mean = values.mean()
    return float(mean) if isinstance(mean, int | float) else None
