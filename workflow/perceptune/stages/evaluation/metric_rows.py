"""Rows of the metrics table, and the answer columns that they are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.plugins import load
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.benchmarks.best_of_n import best_of_k, curve_points
from perceptune.core.benchmarks.bootstrap import bounds, resampled, run_spread, weighted_sum
from perceptune.core.benchmarks.control_prompts import number_of
from perceptune.core.rewards.metrics import Columns, Metric
from perceptune.stages.data.scans import scan

if TYPE_CHECKING:
    from perceptune.core.rewards.reward import RewardMetric

T = TypeVar("T")
Row = dict[str, float | None]
COMPARED = ("base_value", "gain", "gain_ci_low", "gain_ci_high")
UNCOMPARED = ("ci_low", "ci_high", *COMPARED)
"""Columns that are empty for a value without interval and comparison."""
MEASURED = ("request_id", "example_id", "task", "view", "condition", "sample_index", "components", "reason")
"""Columns of the rewards table that every benchmark reads."""
THREADS = 2
"""Parts measured at once: the number of threads of the Snakemake rules."""


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
    metric: Metric, columns: Columns, base: Columns | None, block: BenchmarkBlock, address: tuple[str, ...]
) -> Row:
    """The row of a single metric, see `measured_rows`."""
    return measured_rows({"": metric}, columns, base, block, address)[""]


def measured_rows(
    metrics: Mapping[str, Metric],
    columns: Columns,
    base: Columns | None,
    block: BenchmarkBlock,
    address: tuple[str, ...],
    *,
    of_sums: bool = False,
) -> dict[str, Row]:
    """Metric to its value, interval and, with a base model, that model's value and the paired gain.

    All metrics share the bootstrap samples, whose seed is the same for every policy. `of_sums` as in
    `resampled`.
    """
    if not metrics:
        return {}
    tables = [columns] if base is None else [columns, base]
    measured = [(metric, table) for table in tables for metric in metrics.values()]
    seed = derived_seed("bootstrap", block.seed, *address)
    draws = resampled(measured, resamples=block.resamples, seed=seed, of_sums=of_sums)
    rows: dict[str, Row] = {}
    for (name, metric), own, of_base in zip(
        metrics.items(), draws[: len(metrics)], draws[-len(metrics) :], strict=True
    ):
        value = float(metric(columns))
        found: tuple[float | None, ...] = (value, *bounds(own), *(None for _ in COMPARED))
        if base is not None:
            base_value = float(metric(base))
            found = (*found[:3], base_value, value - base_value, *bounds(weighted_sum((1, -1), (own, of_base))))
        rows[name] = dict(zip(("value", "ci_low", "ci_high", *COMPARED), found, strict=True))
    return rows


def together(parts: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What these functions return, in order, `THREADS` of them running at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda part: part(), parts)


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
    tables = [columns_of(one) for one in ([part] if baseline is None else [part, matched(baseline, part)])]
    points = [("mean_of_n", count), *(("best_of_n", k) for k in curve_points(count))]
    numbers: list[dict[str, np.ndarray]] = [{} for _ in tables]
    rows: list[tuple[str, dict[str, Any]]] = []
    for metric, declared in per_answer(reward).items():
        answers = [each_answer(declared, table).reshape(-1, count) for table in tables]
        for condition, k in [point for point in points if point[0] in conditions]:
            rows.append((f"{condition} {metric} {k}", {"condition": condition, "k": k, "metric": metric}))
            for of_table, values in zip(numbers, answers, strict=True):
                best = best_of_k(values, k, more_is_better=not declared.lower_is_better)
                of_table[rows[-1][0]] = values.mean(axis=1) if condition == "mean_of_n" else best
        if count > 1 and "mean_of_n" in conditions:
            spread = {"value": run_spread(answers[0]), **dict.fromkeys(UNCOMPARED)}
            rows.append(("", {"condition": "mean_of_n", "k": count, "metric": f"{metric}_run_std", **spread}))
    means = {name: mean_of_sum(name, len(values)) for name, values in numbers[0].items()}
    base = numbers[1] if baseline is not None else None
    measured = measured_rows(means, numbers[0], base, block, address, of_sums=True)
    shared = {"n": part.height, "n_failed": int(part["reason"].is_not_null().sum())}
    yield from ({**shared, **fixed, **measured.get(name, {})} for name, fixed in rows)


def per_answer(reward: str) -> dict[str, RewardMetric]:
    """The metrics of a reward that are defined for single answers."""
    metrics = load("reward", reward).metrics
    return {name: declared for name, declared in metrics.items() if declared.component is not None}


def each_answer(declared: RewardMetric, columns: Columns) -> np.ndarray:
    """A per-answer metric, one value per answer."""
    return np.asarray(declared.of_one(columns[str(declared.component)]))


def mean_of_sum(name: str, count: int) -> Metric:
    """The mean of a column of `count` values, computed from their sum."""
    return lambda columns: np.asarray(columns[name].sum(axis=-1) / count)


def mean_of_column(columns: Any) -> np.ndarray:
    return np.asarray(columns["value"].mean(axis=-1))
