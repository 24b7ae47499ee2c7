"""Select the rollout groups that a round trains on from scored responses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from perceptune.contracts.config import BatchBlock


def batch(scored: pl.DataFrame, block: BatchBlock) -> pl.DataFrame:
    """One group per request of `scored`, in sampling order, with `kept` and the reason if dropped.

    `scored` has one row per response: request_id, sample_index, text, token_ids, reward (null for a
    failed response or reward) and keep, the value that `block.keep` selects by (any without one).
    Result, in the order of requests: request_id, responses (list of structs sample_index, text,
    token_ids, reward), kept, reason. Dynamic sampling (arXiv:2503.14476, eq. 11): groups whose mean
    is outside the limits give no gradient.
    """
    answers = pl.struct("sample_index", "text", "token_ids", pl.col("reward").fill_null(0.0))
    empty = pl.col("text").is_null() | (pl.col("token_ids").list.len().fill_null(0) == 0)
    groups = scored.group_by("request_id", maintain_order=True).agg(
        answers.alias("responses"),
        empty=empty.any(),
        unrewarded=(~pl.col("reward").is_finite().fill_null(value=False)).any(),
        mean=pl.col("keep").mean(),
    )
    groups = groups.with_columns(reason=_reason(block))
    if block.questions is not None:
        place = pl.col("reason").is_null().cum_sum()
        surplus = pl.col("reason").is_null() & (place > block.questions)
        groups = groups.with_columns(reason=pl.when(surplus).then(pl.lit("more than `questions`")).otherwise("reason"))
    return groups.with_columns(kept=pl.col("reason").is_null()).select("request_id", "responses", "kept", "reason")


def _reason(block: BatchBlock) -> pl.Expr:
    reason = (
        pl.when("empty")
        .then(pl.lit("answers are missing or empty"))
        .when("unrewarded")
        .then(pl.lit("rewards are missing or not finite"))
    )
    if block.keep is None:
        return reason.otherwise(None)
    return (
        reason.when(~pl.col("mean").is_finite().fill_null(value=False))
        .then(pl.lit(f"{block.keep} is missing or not finite"))
        .when(pl.col("mean") <= block.above)
        .then(pl.lit(f"mean {block.keep} not above {block.above:g}"))
        .when(pl.col("mean") >= block.below)
        .then(pl.lit(f"mean {block.keep} not below {block.below:g}"))
        .otherwise(None)
    )


def statistics(groups: pl.DataFrame) -> dict[str, Any]:
    """Counts of kept and dropped groups by reason."""
    return {
        "groups": groups.height,
        "kept": int(groups["kept"].sum()),
        "dropped": dict(sorted(Counter(groups["reason"].drop_nulls().to_list()).items())),
    }
