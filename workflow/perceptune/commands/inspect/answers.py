"""Queries on tables of answers. Pure functions of frames with the columns of `REWARDS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from perceptune.commands.inspect.filters import AnswerFilter, between, containing, equal, in_order, with_reason

FACETS = ("benchmark", "task", "view", "condition", "reason")
"""Columns whose values are listed to choose from."""
READ = ("text", "task", "view", "reason")
"""Columns that are only read to sort by them."""
LISTED = 100
"""Most values of a facet to choose from; the most frequent ones."""
BARS = 20


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: `count` values v with low <= v < below."""

    low: float
    below: float | None
    """None for the last bar, which has no upper limit."""
    count: int


@dataclass(frozen=True)
class Selection:
    """The answers that match a filter."""

    chosen: pl.DataFrame
    """`table` (index of the frame), `row` and `margin` of each, in the wanted order."""
    rewards: list[Bar]
    """Of the answers that match all other filters."""
    margins: list[Bar]


def select(frames: Sequence[pl.LazyFrame], wanted: AnswerFilter) -> Selection:
    """The answers in `frames` that match.

    The margin is the largest minus the smallest reward of all answers to the same request, also of
    those that do not match; a single answer has none. Without `sort`, answers have the order of the frames and their rows.
    """
    numbered = [frame.with_row_index("row").with_columns(table=pl.lit(i, pl.UInt16)) for i, frame in enumerate(frames)]
    if not numbered:
        return Selection(pl.DataFrame(schema={"table": pl.UInt16, "row": pl.UInt32, "margin": pl.Float64}), [], [])
    reward = pl.col("reward")
    margin = pl.when(pl.len() > 1).then(reward.max() - reward.min()).over("table", "request_id")
    by = wanted.sort.removeprefix("-")
    more = [pl.col("text").str.len_chars().alias("length")] if by == "length" else [pl.col(by)] if by in READ else []
    matching = (
        equal(wanted, ("benchmark", "task", "view", "condition"))
        & with_reason(wanted.reason)
        & containing(wanted.text)
        & (pl.lit(True) if wanted.example is None else pl.col("example_id") == wanted.example)
    )
    found = (
        pl.concat(numbered)
        .with_columns(margin=margin)
        .filter(matching)
        .select("table", "row", "reward", "margin", *more)
        .collect()
    )
    rewarded = between("reward", wanted.reward_min, wanted.reward_below)
    spread = between("margin", wanted.margin_min, wanted.margin_below)
    # tables come in the order of their policies
    chosen = in_order(found.filter(rewarded & spread), wanted.sort, {"policy": "table"})
    return Selection(
        chosen.select("table", "row", "margin"),
        histogram(found.filter(spread)["reward"]),
        histogram(found.filter(rewarded)["margin"]),
    )


def facets(frames: Sequence[pl.LazyFrame], columns: Sequence[str] = FACETS) -> dict[str, list[tuple[str | None, int]]]:
    """Values of each column with their numbers of rows, the most frequent first, at most `LISTED`."""
    if not frames:
        return {column: [] for column in columns}
    together = pl.concat([frame.select(columns) for frame in frames]).group_by(columns).len()
    counts = together.collect(engine="streaming")
    found = {}
    for column in columns:
        totals = counts.group_by(column).agg(pl.col("len").sum()).sort(["len", column], descending=[True, False])
        found[column] = totals.head(LISTED).rows()
    return found


def histogram(values: pl.Series) -> list[Bar]:
    """Bars of equal width over [0, 1], or wider if the values are; around 0 if some are negative. Null,
    NaN and infinity are left out."""
    finite = _finite(values)
    if finite.is_empty():
        return []
    if float(finite.min()) < 0:  # type: ignore[arg-type]
        return differences(finite)
    return _bars(finite, 0.0, max(1.0, float(finite.max())))  # type: ignore[arg-type]


def differences(values: pl.Series) -> list[Bar]:
    """The same around 0, over [-1, 1] or wider. A difference of 0 belongs to the bar above 0."""
    finite = _finite(values)
    if finite.is_empty():
        return []
    side = max(1.0, float(finite.abs().max()))  # type: ignore[arg-type]
    return _bars(finite, -side, side)


def _bars(values: pl.Series, low: float, high: float) -> list[Bar]:
    edges = [round(low + (high - low) * i / BARS, 6) for i in range(BARS)]
    place = values.cut(edges[1:], labels=[f"{i:03}" for i in range(BARS)], left_closed=True).cast(pl.String)
    counts = {int(label): count for label, count in place.value_counts().rows()}
    return [Bar(edge, edges[i + 1] if i + 1 < BARS else None, counts.get(i, 0)) for i, edge in enumerate(edges)]


def _finite(values: pl.Series) -> pl.Series:
    values = values.drop_nulls()
    return values.filter(values.is_finite())


def ranked(answers: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The answers to one request, best first; ties by sample index, those without a reward last."""

    def rank(answer: Mapping[str, object]) -> tuple[bool, float, int]:
        reward = answer["reward"]
        return reward is None, -float(reward or 0), int(answer["sample_index"])  # type: ignore[arg-type, call-overload]

    return [dict(answer) for answer in sorted(answers, key=rank)]
