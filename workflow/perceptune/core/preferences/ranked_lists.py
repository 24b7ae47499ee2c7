"""Ranked lists of scored responses that have a reward margin (PerPO, arXiv:2502.04371)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from perceptune.contracts.config import SelectionBlock
from perceptune.contracts.seeds import derived_seed

ROUNDING = 1e-9
"""Tolerance of the margin test, so that 0.9 - 0.1 >= 0.8 holds."""
BINS = 20


def ranked_lists(scored: pl.DataFrame, block: SelectionBlock) -> pl.DataFrame:
    """One ranked list per request of `scored`, best first, with `kept` and the reason if dropped.

    `scored` has one row per response: request_id, sample_index, text, token_ids, reward (null for a
    failed response or reward). Result, in the order of requests: request_id, responses (list of structs
    sample_index, text, token_ids, reward), kept, reason. Ties are ranked by sample index.
    """
    usable = scored.filter(pl.col("reward").is_finite() & pl.col("text").is_not_null())
    if block.deduplicate:
        usable = usable.sort("sample_index").unique(["request_id", "text"], keep="first", maintain_order=True)
    if block.pick == "first":
        order = pl.col("sample_index").rank("ordinal").over("request_id")
        usable = usable.filter(order <= block.list_size)
    usable = usable.sort(["reward", "sample_index"], descending=[True, False])
    if block.pick == "spread":
        usable = _spread(usable, block.list_size)
    lists = usable.group_by("request_id", maintain_order=True).agg(
        pl.struct("sample_index", "text", "token_ids", "reward").alias("responses"),
        best=pl.col("reward").first(),
        worst=pl.col("reward").last(),
    )
    table = (
        scored.select("request_id").unique(maintain_order=True).join(lists, "request_id", "left", maintain_order="left")
    )
    table = table.with_columns(reason=_reason(block))
    if block.max_groups is not None:
        table = _capped(table, block)
    return table.with_columns(
        kept=pl.col("reason").is_null(),
        responses=pl.coalesce("responses", pl.lit([], dtype=table.schema["responses"])),
    ).select("request_id", "responses", "kept", "reason")


def _spread(ranked: pl.DataFrame, size: int) -> pl.DataFrame:
    """At most `size` rows per request, evenly spread over the ranks, with best and worst."""
    rank = pl.int_range(pl.len()).over("request_id")
    count = pl.len().over("request_id")
    # rank r is taken if a point of the grid of `size` points over 0 .. count - 1 rounds to it
    slot = (rank * (size - 1) / (count - 1)).round()
    nearest = (slot * (count - 1) / (size - 1)).round()
    return ranked.filter((count <= size) | (nearest == rank))


def _reason(block: SelectionBlock) -> pl.Expr:
    margin = pl.col("best") - pl.col("worst")
    return (
        pl.when(pl.col("responses").is_null())
        .then(pl.lit("no scored answer"))
        .when(pl.col("responses").list.len() == 1)
        .then(pl.lit("one distinct answer"))
        .when(pl.col("responses").list.len() < block.min_list_size)
        .then(pl.lit(f"fewer than {block.min_list_size} distinct answers"))
        .when(margin == 0)
        .then(pl.lit("all rewards equal"))
        .when(margin < block.min_margin - ROUNDING)
        .then(pl.lit(f"margin below {block.min_margin:g}"))
        .otherwise(None)
    )


def _capped(table: pl.DataFrame, block: SelectionBlock) -> pl.DataFrame:
    """Drop all but `max_groups` lists, chosen by a hash of seed and request id."""
    kept = table.filter(pl.col("reason").is_null())["request_id"].to_list()
    chosen = sorted(kept, key=lambda request: derived_seed("selection", block.seed, request))[: block.max_groups]
    surplus = pl.col("reason").is_null() & ~pl.col("request_id").is_in(chosen)
    return table.with_columns(reason=pl.when(surplus).then(pl.lit("not chosen (max_groups)")).otherwise("reason"))


def statistics(lists: pl.DataFrame, scored: pl.DataFrame) -> dict[str, Any]:
    """Counts of kept and, by reason, dropped lists; list lengths; reward and margin histograms."""
    kept = lists.filter("kept")
    lengths = kept["responses"].list.len()
    per_request = scored.group_by("request_id").agg(margin=pl.col("reward").max() - pl.col("reward").min())
    return {
        "groups": lists.height,
        "kept": kept.height,
        "acceptance": kept.height / lists.height if lists.height else 0.0,
        "dropped": dict(sorted(Counter(lists["reason"].drop_nulls().to_list()).items())),
        "answers": scored.height,
        "distinct_answers_per_group": _mean(scored.group_by("request_id").agg(pl.col("text").n_unique())["text"]),
        "mean_list_size": _mean(lengths),
        "reward_histogram": _histogram(scored["reward"]),
        "margin_histogram": _histogram(per_request["margin"]),
    }


def _mean(values: pl.Series) -> float:
    return float(values.cast(pl.Float64).mean() or 0.0) if len(values) else 0.0  # type: ignore[arg-type]


def _histogram(values: pl.Series) -> dict[str, list[float]]:
    """A histogram over [0, 1], or wider if needed: a dataset's own rewards may have another scale."""
    found = values.filter(values.is_finite()).to_numpy()
    limits = (min(0.0, *found), max(1.0, *found)) if len(found) else (0.0, 1.0)
    counts, edges = np.histogram(found, bins=BINS, range=limits)
    return {"edges": edges.round(6).tolist(), "counts": counts.tolist()}
