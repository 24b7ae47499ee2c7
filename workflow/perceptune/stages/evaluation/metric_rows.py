"""Rows of the metrics table, and the answer columns that they are computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.plugins import load
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.benchmarks.best_of_n import best_of_k, curve_points
from perceptune.core.benchmarks.bootstrap import interval, paired_gain, run_spread
from perceptune.core.benchmarks.control_prompts import number_of
from perceptune.core.rewards.metrics import Columns, Metric

if TYPE_CHECKING:
    from perceptune.core.rewards.reward import RewardMetric

COMPARED = ("base_value", "gain", "gain_ci_low", "gain_ci_high")
UNCOMPARED = ("ci_low", "ci_high", *COMPARED)
"""Columns that are empty for a value without interval and comparison."""


@dataclass(frozen=True)
class Reading:
    """A metric, with the answer columns to compute it from."""

    name: str
    metric: Metric
    columns: Columns

    @property
    def value(self) -> float:
        """The metric of these answers."""
        return float(self.metric(self.columns))


class Measuring(Protocol):
    """How a benchmark block is measured."""

    block: BenchmarkBlock

    def rows(self, answers: pl.DataFrame, base_answers: pl.DataFrame | None) -> Iterator[dict[str, Any]]:
        """Rows of the metrics table per view and condition, without policy, benchmark and split."""
        ...

    def primary(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...]
    ) -> dict[str, float | None]:
        """Value and gain of the primary metric, for greedy answers of one task.

        `baseline` are the base model's answers to the same questions.
        """
        ...

    def parts(self, answers: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Answers grouped as they are measured, with their task in the metrics table."""
        ...

    def greedy(self, part: pl.DataFrame, metric: str | None = None, table_index: int = 0) -> Reading:
        """A metric (default: the primary one) of one answer per question.

        `table_index`: index into the tables of verdicts.
        """
        ...

    def averaged(self, part: pl.DataFrame, table_index: int = 0) -> Reading | None:
        """The first per-answer metric, averaged over n answers per question, or None."""
        ...


def condition_columns(condition: str) -> dict[str, Any]:
    """Condition columns of greedy answers to the benchmark's own or a numbered other prompt."""
    number = number_of(condition)
    return {"condition": condition, "k": 1} if number is None else {"condition": "prompt", "k": number}


def answers_of(path: Path, benchmark: str) -> pl.DataFrame:
    """The scored answers of one benchmark; a missing answer counts as unparsable."""
    table = pl.DataFrame(pl.from_arrow(read_table(path, REWARDS)))
    return table.filter(pl.col("benchmark") == benchmark).sort("request_id", "sample_index")


def columns_of(part: pl.DataFrame) -> dict[str, np.ndarray]:
    """Component name to its values, one per answer; those of an empty answer if it is missing."""
    names: dict[str, None] = {}
    records = [{c["name"]: c["value"] for c in row} for row in part["components"].to_list()]
    for record in records:
        names |= dict.fromkeys(record)
    return {n: np.array([r.get(n, 0.0) for r in records], dtype=float) for n in names}


def matched(baseline: pl.DataFrame, part: pl.DataFrame) -> pl.DataFrame:
    """The base model's answers to the same requests, in the same order."""
    keys = ["request_id", "sample_index"]
    return part.select(keys).join(baseline, keys, "left", validate="1:1", maintain_order="left")


def measured_row(
    metric: Metric, columns: Any, base: Any, block: BenchmarkBlock, address: tuple[str | int, ...]
) -> dict[str, float | None]:
    """Value, interval and, with a base model, its value and the paired gain.

    The bootstrap seed is the same for every policy.
    """
    settings = {"resamples": block.resamples, "seed": derived_seed("bootstrap", block.seed, *address)}
    value, low, high = interval(metric, columns, **settings)
    row: dict[str, float | None] = {"value": value, "ci_low": low, "ci_high": high}
    row |= dict.fromkeys(COMPARED)
    if base is not None:
        gain, low, high = paired_gain(metric, columns, base, **settings)
        row |= {"base_value": float(metric(base)), "gain": gain, "gain_ci_low": low, "gain_ci_high": high}
    return row


def sampled_rows(
    part: pl.DataFrame,
    baseline: pl.DataFrame | None,
    reward: str,
    block: BenchmarkBlock,
    address: tuple[str, ...],
    conditions: tuple[str, ...] = ("mean_of_n", "best_of_n"),
) -> Iterator[dict[str, Any]]:
    """Mean of N with its spread over the N runs, and best of k for k = 1, 2, 4, ..., N.

    `n` and `n_failed` count all sampled answers.
    """
    count = max(part.group_by("request_id").len()["len"].to_list(), default=0)
    columns, base = columns_of(part), None if baseline is None else columns_of(matched(baseline, part))
    shared = {"n": part.height, "n_failed": int(part["reason"].is_not_null().sum())}
    for metric, declared in per_answer(reward).items():
        tables = [None if c is None else each_answer(declared, c).reshape(-1, count) for c in (columns, base)]
        points: list[tuple[str, int]] = [("mean_of_n", count), *(("best_of_n", k) for k in curve_points(count))]
        points = [point for point in points if point[0] in conditions]
        for condition, k in points:
            per_example = [
                None
                if t is None
                else {
                    "value": t.mean(axis=1)
                    if condition == "mean_of_n"
                    else best_of_k(t, k, more_is_better=not declared.lower_is_better)
                }
                for t in tables
            ]
            values = measured_row(
                mean_of_column, per_example[0] or {}, per_example[1], block, (*address, condition, metric, k)
            )
            yield {"condition": condition, "k": k, "metric": metric, **shared, **values}
        if count > 1 and tables[0] is not None and "mean_of_n" in conditions:
            spread = {"value": run_spread(tables[0]), **dict.fromkeys(UNCOMPARED)}
            yield {"condition": "mean_of_n", "k": count, "metric": f"{metric}_run_std", **shared, **spread}


def per_answer(reward: str) -> dict[str, RewardMetric]:
    """The metrics of a reward that are defined for single answers."""
    metrics = load("reward", reward).metrics
    return {name: declared for name, declared in metrics.items() if declared.component is not None}


def each_answer(declared: RewardMetric, columns: Columns) -> np.ndarray:
    """A per-answer metric, one value per answer."""
    return np.asarray(declared.of_one(columns[str(declared.component)]))


def mean_of_column(columns: Any) -> np.ndarray:
    return np.asarray(columns["value"].mean(axis=-1))
