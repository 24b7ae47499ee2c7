"""Rows of the metrics table, and the answer columns that they are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.plugins import load
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.benchmarks.best_of_n import best_of_k, curve_points
from perceptune.core.benchmarks.bootstrap import interval, interval_and_gain, run_spread
from perceptune.core.benchmarks.control_prompts import number_of
from perceptune.core.rewards.metrics import Columns, Metric
from perceptune.stages.data.scans import scan

if TYPE_CHECKING:
    from perceptune.core.rewards.reward import RewardMetric

COMPARED = ("base_value", "gain", "gain_ci_low", "gain_ci_high")
UNCOMPARED = ("ci_low", "ci_high", *COMPARED)
"""Columns that are empty for a value without interval and comparison."""
MEASURED = ("request_id", "example_id", "task", "view", "condition", "sample_index", "components", "reason")
"""Columns of the rewards table that every benchmark reads."""
THREADS = 2
"""Metrics measured at once: the number of threads of the Snakemake rules."""


@dataclass(frozen=True)
class Reading:
    """A metric, with the answer columns to compute it from."""

    name: str
    metric: Metric
    columns: Columns
    of_sums: bool = False
    """Whether the metric uses only sums of the columns, as those of protocols do."""

    @property
    def value(self) -> float:
        """The metric of these answers."""
        return float(self.metric(self.columns))


class Measuring(Protocol):
    """How a benchmark block is measured."""

    block: BenchmarkBlock
    columns: tuple[str, ...]
    """Columns of the rewards table to read, see `answers_of`."""

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


def answers_of(path: Path, benchmark: str, columns: Sequence[str] = MEASURED) -> pl.DataFrame:
    """Columns of the scored answers of one benchmark, ordered by request and sample.

    `components` is a struct with a float per name, null if the answer lacks it. A missing answer
    counts as unparsable.
    """
    table = scan(path, REWARDS).filter(pl.col("benchmark") == benchmark)
    answers = table.select(columns).collect(engine="streaming")
    return answers.with_columns(components_of(answers["components"])).sort("request_id", "sample_index")


def components_of(lists: pl.Series) -> pl.Series:
    """The column `components` of the rewards table as a struct with a float per name, null if the
    answer lacks it.
    """
    count, fields = len(lists), {}
    items = pl.DataFrame({"row": np.arange(count), "item": lists}).filter(pl.col("item").list.len() > 0)
    for (name,), own in items.explode("item").unnest("item").group_by("name", maintain_order=True):
        values, missing = np.zeros(count), np.ones(count, dtype=bool)
        values[own["row"]], missing[own["row"]] = own["value"].fill_null(math.nan), False
        fields[str(name)] = pl.Series(pa.array(values, mask=missing))
    if not fields:
        return pl.Series("components", [{}] * count, pl.Struct({}))
    return pl.DataFrame(fields).to_struct("components")


def columns_of(part: pl.DataFrame) -> dict[str, np.ndarray]:
    """Component name to its values, one per answer; those of an empty answer if it is missing."""
    fields = part["components"].struct.unnest()
    return {field.name: field.fill_null(0.0).to_numpy() for field in fields if field.count()}


def matched(baseline: pl.DataFrame, part: pl.DataFrame) -> pl.DataFrame:
    """The base model's answers to the same requests, in the same order.

    Raises `ValueError` if one is missing.
    """
    keys = ["request_id", "sample_index"]
    if baseline.select(keys).equals(part.select(keys)):
        return baseline
    found = part.select(keys).join(baseline, keys, "left", validate="1:1", maintain_order="left")
    if absent := found["example_id"].null_count():
        raise ValueError(f"the base model lacks {absent} of {part.height} answers, expected all")
    return found


def measured_row(
    metric: Metric, columns: Any, base: Any, block: BenchmarkBlock, address: tuple[str | int, ...]
) -> dict[str, float | None]:
    """Value, interval and, with a base model, its value and the paired gain.

    The bootstrap seed is the same for every policy.
    """
    settings = {"resamples": block.resamples, "seed": derived_seed("bootstrap", block.seed, *address)}
    if base is None:
        found: tuple[float | None, ...] = (*interval(metric, columns, **settings), *(None for _ in COMPARED))
    else:
        own, gain = interval_and_gain(metric, columns, base, **settings)
        found = (*own, float(metric(base)), *gain)
    return dict(zip(("value", "ci_low", "ci_high", *COMPARED), found, strict=True))


def together(rows: Iterable[Callable[[], dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The rows that these functions return, in order, `THREADS` of them computed at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda row: row(), rows)


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
    points: list[tuple[str, int]] = [("mean_of_n", count), *(("best_of_n", k) for k in curve_points(count))]
    planned: list[Callable[[], dict[str, Any]]] = []
    for metric, declared in per_answer(reward).items():
        own, of_base = (None if c is None else each_answer(declared, c).reshape(-1, count) for c in (columns, base))
        assert own is not None
        for condition, k in [point for point in points if point[0] in conditions]:
            fixed = {"condition": condition, "k": k, "metric": metric, **shared}
            planned.append(partial(_sampled_row, fixed, declared, own, of_base, block, address))
        if count > 1 and "mean_of_n" in conditions:
            spread = {"value": run_spread(own), **dict.fromkeys(UNCOMPARED)}
            planned.append(
                partial(dict, {"condition": "mean_of_n", "k": count, "metric": f"{metric}_run_std", **shared, **spread})
            )
    yield from together(planned)


def _sampled_row(
    fixed: dict[str, Any],
    declared: RewardMetric,
    own: np.ndarray,
    of_base: np.ndarray | None,
    block: BenchmarkBlock,
    address: tuple[str, ...],
) -> dict[str, Any]:
    """The mean over questions of the mean or the best of k answers; both arrays are (questions, n)."""
    condition, k = fixed["condition"], fixed["k"]

    def of_questions(answers: np.ndarray) -> dict[str, np.ndarray]:
        if condition == "mean_of_n":
            return {"value": answers.mean(axis=1)}
        return {"value": best_of_k(answers, k, more_is_better=not declared.lower_is_better)}

    base = None if of_base is None else of_questions(of_base)
    place = (*address, condition, fixed["metric"], k)
    return {**fixed, **measured_row(mean_of_column, of_questions(own), base, block, place)}


def per_answer(reward: str) -> dict[str, RewardMetric]:
    """The metrics of a reward that are defined for single answers."""
    metrics = load("reward", reward).metrics
    return {name: declared for name, declared in metrics.items() if declared.component is not None}


def each_answer(declared: RewardMetric, columns: Columns) -> np.ndarray:
    """A per-answer metric, one value per answer."""
    return np.asarray(declared.of_one(columns[str(declared.component)]))


def mean_of_column(columns: Any) -> np.ndarray:
    return np.asarray(columns["value"].mean(axis=-1))
