"""Ranked lists of scored responses that have a reward margin (PerPO, arXiv:2502.04371)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
    sample_index, text, token_ids, reward), kept, reason. Ties are ranked by sample index. Without
    `max_groups`, which concerns all requests of a table: see `capped`.
    """
    light = scored.drop("token_ids").with_row_index("row")  # tokens are moved only once
    usable = light.filter(pl.col("reward").is_finite() & pl.col("text").is_not_null())
    if block.deduplicate:
        usable = usable.sort("sample_index").unique(["request_id", "text"], keep="first", maintain_order=True)
    if block.pick == "first":
        order = pl.col("sample_index").rank("ordinal").over("request_id")
        usable = usable.filter(order <= block.list_size)
    usable = usable.sort(["reward", "sample_index"], descending=[True, False])
    if block.pick == "spread":
        usable = _spread(usable, block.list_size)
    usable = usable.with_columns(scored["token_ids"].gather(usable["row"]))
    lists = usable.group_by("request_id", maintain_order=True).agg(
        pl.struct("sample_index", "text", "token_ids", "reward").alias("responses"),
        best=pl.col("reward").first(),
        worst=pl.col("reward").last(),
    )
    table = (
        scored.select("request_id").unique(maintain_order=True).join(lists, "request_id", "left", maintain_order="left")
    )
    table = table.with_columns(reason=_reason(block))
    responses = pl.coalesce("responses", pl.lit([], dtype=table.schema["responses"]))
    return _marked(table.with_columns(responses=responses).select("request_id", "responses", "reason"))


def _spread(ranked: pl.DataFrame, size: int) -> pl.DataFrame:
    """At most `size` rows per request, evenly spread over the ranks, with best and worst."""
    if (ranked.group_by("request_id").len()["len"] <= size).all():
        return ranked
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


def capped(lists: pl.DataFrame, block: SelectionBlock) -> pl.DataFrame:
    """The lists, of which at most `max_groups` are kept."""
    return lists if block.max_groups is None else only(lists, drawn(lists.filter("kept")["request_id"], block))


def drawn(kept: Iterable[str], block: SelectionBlock) -> set[str]:
    """The `max_groups` of these requests that have the smallest hashes of seed and request id."""
    return set(sorted(kept, key=lambda request: derived_seed("selection", block.seed, request))[: block.max_groups])


def only(lists: pl.DataFrame, chosen: set[str]) -> pl.DataFrame:
    """The lists, of which those of other requests than `chosen` are dropped."""
    surplus = pl.col("kept") & ~pl.col("request_id").is_in(chosen)
    return _marked(
        lists.with_columns(reason=pl.when(surplus).then(pl.lit("not chosen (max_groups)")).otherwise("reason"))
    )


def _marked(lists: pl.DataFrame) -> pl.DataFrame:
    """The lists with the column `kept`."""
    return lists.with_columns(kept=pl.col("reason").is_null()).select("request_id", "responses", "kept", "reason")


class Statistics:
    """Counts of kept and, by reason, dropped lists; list lengths; reward and margin histograms."""

    def __init__(self) -> None:
        self.groups = self.kept = 0
        self._answers = self._answered = self._distinct = self._listed = 0
        self.dropped: Counter[str] = Counter()
        self._rewards: list[np.ndarray] = []
        self._margins: list[np.ndarray] = []

    def add(self, lists: pl.DataFrame, scored: pl.DataFrame) -> None:
        """Adds lists and the responses that they were made of, see `ranked_lists`.

        Responses without text are missing: they are no answers.
        """
        kept = lists.filter("kept")
        self.groups += lists.height
        self.kept += kept.height
        self.dropped.update(lists["reason"].drop_nulls().to_list())
        self._listed += int(kept["responses"].list.len().sum())
        answers = scored.filter(pl.col("text").is_not_null())
        self._answers += answers.height
        by_request = answers.group_by("request_id").agg(
            margin=pl.col("reward").max() - pl.col("reward").min(), distinct=pl.col("text").n_unique()
        )
        self._answered += by_request.height
        self._distinct += int(by_request["distinct"].sum())
        for values, found in ((answers["reward"], self._rewards), (by_request["margin"], self._margins)):
            found.append(values.filter(values.is_finite()).to_numpy())

    def table(self) -> dict[str, Any]:
        """The statistics by name, as JSON values."""
        return {
            "groups": self.groups,
            "kept": self.kept,
            "acceptance": _ratio(self.kept, self.groups),
            "dropped": dict(sorted(self.dropped.items())),
            "answers": self._answers,
            "distinct_answers_per_group": _ratio(self._distinct, self._answered),
            "mean_list_size": _ratio(self._listed, self.kept),
            "reward_histogram": _histogram(self._rewards),
            "margin_histogram": _histogram(self._margins),
        }


def _ratio(count: int, total: int) -> float:
    return count / total if total else 0.0


def _histogram(parts: list[np.ndarray]) -> dict[str, list[float]]:
    """A histogram over [0, 1], or wider if needed: a dataset's own rewards may have another scale."""
    found = np.concatenate([[], *parts])
    limits = (found.min(initial=0.0), found.max(initial=1.0))
    counts, edges = np.histogram(found, bins=BINS, range=limits)
    return {"edges": edges.round(6).tolist(), "counts": counts.tolist()}
