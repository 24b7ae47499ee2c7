"""The metrics of one policy on its benchmarks, with intervals and the paired gain over its base model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perceptune.contracts.config import BenchmarkBlock, ModelBlock
from perceptune.contracts.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables import read_table, write_table
from perceptune.core.metrics import METRICS, PER_ANSWER, Metric, best_of_k, curve_points, interval, paired_gain

KEYS = ["task", "view", "condition"]


def run(
    *,
    policy: str,
    base: str,
    rewards: dict[str, Path],
    base_rewards: dict[str, Path] | None,
    metrics: Path,
    benchmarks: dict[str, BenchmarkBlock],
    reward_tasks: dict[str, dict[str, str]],
    model: ModelBlock,
) -> None:
    """Writes the `metrics` table of `policy`.

    `rewards` and `base_rewards` map a benchmark to the scored answers of the policy and of its base model; `reward_tasks`
    maps a reward block to the reward of each task, which says which metrics its components make.
    """
    rows: list[dict[str, Any]] = []
    for name, block in benchmarks.items():
        ours = _answers(rewards[name], name)
        theirs = _answers(base_rewards[name], name) if base_rewards else None
        for (task, view, condition), part in ours.group_by(KEYS, maintain_order=True):
            reward = reward_tasks[block.reward][str(task)]
            baseline = None if theirs is None else theirs.filter(task=task, view=view, condition=condition)
            measured = _greedy if condition == "greedy" else _curves
            for row in measured(part, baseline, reward, block, (policy, name, str(task), str(view))):
                rows.append(
                    {"policy": policy, "benchmark": name, "split": block.split, "task": task, "view": view, **row}
                )
    inputs = {f"rewards {k}": v for k, v in rewards.items()}
    inputs |= {f"base rewards {k}": v for k, v in (base_rewards or {}).items()}
    parameters = {
        "policy": policy,
        "base": base,
        "model": model.model_dump(mode="json"),
        "benchmarks": {k: b.model_dump(mode="json") for k, b in benchmarks.items()},
    }
    write_table(metrics, "metrics", rows, lineage("evaluate", parameters, inputs))


def _answers(path: Path, benchmark: str) -> pl.DataFrame:
    """The scored answers of one benchmark; an answer that is missing counts as one that could not be parsed."""
    table = pl.from_arrow(read_table(path, "rewards"))
    return table.filter(pl.col("benchmark") == benchmark).sort("request_id", "sample_index")  # type: ignore[union-attr]


def _columns(part: pl.DataFrame) -> dict[str, np.ndarray]:
    """Component name to its values, one per answer; 0 where the answer is missing."""
    names: dict[str, None] = {}
    records = [{c["name"]: c["value"] for c in row} for row in part["components"].to_list()]
    for record in records:
        names |= dict.fromkeys(record)
    return {n: np.array([r.get(n, 0.0) for r in records], dtype=float) for n in names}


def _greedy(
    part: pl.DataFrame, baseline: pl.DataFrame | None, reward: str, block: BenchmarkBlock, address: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """One row per metric of the greedy answers."""
    columns, base = _columns(part), None if baseline is None else _columns(_matched(baseline, part))
    failed = part["reason"].is_not_null().sum()
    for metric, function in METRICS[reward].items():
        if metric.endswith("_frame") and f"iou_{metric.split('_')[-2]}_frame" not in columns:
            continue
        values = _row(function, columns, base, block, (*address[1:], metric))
        yield {"condition": "greedy", "k": 1, "metric": metric, "n": part.height, "n_failed": failed, **values}


def _matched(baseline: pl.DataFrame, part: pl.DataFrame) -> pl.DataFrame:
    """The base model's answers to the same requests in the same order."""
    keys = ["request_id", "sample_index"]
    return part.select(keys).join(baseline, keys, "left", validate="1:1", maintain_order="left")


def _curves(
    part: pl.DataFrame, baseline: pl.DataFrame | None, reward: str, block: BenchmarkBlock, address: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Mean of N, and best of k for k = 1, 2, 4, ..., N, over the sampled answers."""
    count = int(part.group_by("request_id").len()["len"].max() or 0)  # type: ignore[call-overload]
    columns, base = _columns(part), None if baseline is None else _columns(_matched(baseline, part))
    failed = int(part["reason"].is_not_null().sum())
    for metric, (component, value, more_is_better) in PER_ANSWER[reward].items():
        tables = [None if c is None else value(c[component]).reshape(-1, count) for c in (columns, base)]
        points: list[tuple[str, int]] = [("mean_of_n", count), *(("best_of_n", k) for k in curve_points(count))]
        for condition, k in points:
            per_example = [
                None
                if t is None
                else {
                    "value": t.mean(axis=1)
                    if condition == "mean_of_n"
                    else best_of_k(t, k, more_is_better=more_is_better)
                }
                for t in tables
            ]
            values = _row(
                _mean_value, per_example[0] or {}, per_example[1], block, (*address[1:], condition, metric, k)
            )
            shared = {"n": part["request_id"].n_unique(), "n_failed": failed}
            yield {"condition": condition, "k": k, "metric": metric, **shared, **values}


def _mean_value(columns: Any) -> np.ndarray:
    return np.asarray(columns["value"].mean(axis=-1))


def _row(
    metric: Metric, columns: Any, base: Any, block: BenchmarkBlock, address: tuple[str | int, ...]
) -> dict[str, float | None]:
    """Value, interval and, with a base model, its value and the paired gain. The seed is the same for every policy."""
    settings = {"resamples": block.resamples, "seed": derived_seed("bootstrap", block.seed, *address)}
    value, low, high = interval(metric, columns, **settings)
    row: dict[str, float | None] = {"value": value, "ci_low": low, "ci_high": high}
    row |= dict.fromkeys(("base_value", "gain", "gain_ci_low", "gain_ci_high"))
    if base is not None:
        gain, low, high = paired_gain(metric, columns, base, **settings)
        row |= {"base_value": float(metric(base)), "gain": gain, "gain_ci_low": low, "gain_ci_high": high}
    return row
