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
from perceptune.core.curves import best_of_k, curve_points
from perceptune.core.metrics import (
    METRICS,
    PER_ANSWER,
    Metric,
    interval,
    paired_gain,
    run_spread,
)

KEYS = ["task", "view", "condition"]
UNCOMPARED = ("ci_low", "ci_high", "base_value", "gain", "gain_ci_low", "gain_ci_high")
"""Columns that a bare value leaves empty."""


def run(
    *,
    policy: str,
    base: str,
    rewards: dict[str, Path],
    base_rewards: dict[str, Path] | None,
    attention: dict[str, Path],
    base_attention: dict[str, Path] | None,
    metrics: Path,
    benchmarks: dict[str, BenchmarkBlock],
    reward_tasks: dict[str, dict[str, str]],
    model: ModelBlock,
) -> None:
    """Writes the `metrics` table of `policy`.

    `rewards` and `base_rewards` map a benchmark to the scored answers of the policy and of its base model, `attention` and
    `base_attention` those that measure it to where the two look; `reward_tasks` maps a reward block to the reward of each
    task, which says which metrics its components make.
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
        if name in attention:
            looked = read_table(attention[name], "attention").to_pylist()
            base_looked = read_table(base_attention[name], "attention").to_pylist() if base_attention else None
            shared = {"policy": policy, "benchmark": name, "split": block.split}
            for row in _attention(looked, base_looked, ours, theirs, reward_tasks[block.reward], block, name):
                rows.append({**shared, **row})
    inputs = {f"rewards {k}": v for k, v in rewards.items()}
    inputs |= {f"base rewards {k}": v for k, v in (base_rewards or {}).items()}
    inputs |= {f"attention {k}": v for k, v in attention.items()}
    inputs |= {f"base attention {k}": v for k, v in (base_attention or {}).items()}
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
    """Mean of N with its spread over the N runs, and best of k for k = 1, 2, 4, ..., N, over the sampled answers."""
    count = int(part.group_by("request_id").len()["len"].max() or 0)  # type: ignore[call-overload]
    columns, base = _columns(part), None if baseline is None else _columns(_matched(baseline, part))
    shared = {"n": part["request_id"].n_unique(), "n_failed": int(part["reason"].is_not_null().sum())}
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
                _mean_of_column, per_example[0] or {}, per_example[1], block, (*address[1:], condition, metric, k)
            )
            yield {"condition": condition, "k": k, "metric": metric, **shared, **values}
        if count > 1 and tables[0] is not None:
            spread = {"value": run_spread(tables[0]), **dict.fromkeys(UNCOMPARED)}
            yield {"condition": "mean_of_n", "k": count, "metric": f"{metric}_run_std", **shared, **spread}


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


def _attention(
    looked: list[dict[str, Any]],
    base_looked: list[dict[str, Any]] | None,
    ours: pl.DataFrame,
    theirs: pl.DataFrame | None,
    rewards: dict[str, str],
    block: BenchmarkBlock,
    benchmark: str,
) -> Iterator[dict[str, Any]]:
    """Per task: attention focus ratio and image share, of the map and of each layer, and P-Acc (dossier b.3).

    P-Acc is the accuracy on the examples whose AFR under the *base model* is above its average: the same ones for every policy.
    """
    answers = ours.filter(condition="greedy", view=block.views[0])
    task_of = dict(answers.select("example_id", "task").iter_rows())
    here = {row["example_id"]: row for row in looked if row["reason"] is None}
    base = None if base_looked is None else {row["example_id"]: row for row in base_looked if row["reason"] is None}
    for task in dict.fromkeys(task_of.values()):
        ids = [i for i in here if task_of.get(i) == task and (base is None or i in base)]
        for metric, numbers in _looks(here, base, ids).items():
            values = [None if c is None else {"value": np.array(c, dtype=float)} for c in numbers]
            address = (benchmark, str(task), block.views[0], "attention", metric)
            found = _row(_mean_of_column, values[0], values[1], block, address)
            count = {"n": len(numbers[0]), "n_failed": len(ids) - len(numbers[0])}
            yield {
                "task": task,
                "view": block.views[0],
                "condition": "attention",
                "k": 1,
                "metric": metric,
                **count,
                **found,
            }
        yield from _perceived(here, base, ids, str(task), answers, theirs, rewards[str(task)], block, benchmark)


def _looks(
    here: dict[str, dict[str, Any]], base: dict[str, dict[str, Any]] | None, ids: list[str]
) -> dict[str, tuple[list[float], list[float] | None]]:
    """Metric to its values of the policy and of its base model, of the examples where both have one."""
    found: dict[str, tuple[list[float], list[float] | None]] = {}

    def add(metric: str, value: Any) -> None:
        pairs = [(value(here[i]), value(here[i] if base is None else base[i])) for i in ids]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if known:
            found[metric] = ([a for a, _ in known], None if base is None else [b for _, b in known])

    def of_layer(column: str, layer: int) -> Any:
        return lambda row: None if row[column] is None else row[column][layer]

    def average(row: dict[str, Any]) -> float | None:
        return None if row["image_share"] is None else float(np.mean(row["image_share"]))

    layers = max((len(here[i]["image_share"]) for i in ids), default=0)
    add("afr", lambda row: row["afr"])
    add("image_share", average)
    for layer in range(layers):
        add(f"afr_layer_{layer:02}", of_layer("layer_afr", layer))
        add(f"image_share_layer_{layer:02}", of_layer("image_share", layer))
    return found


def _perceived(
    here: dict[str, dict[str, Any]],
    base: dict[str, dict[str, Any]] | None,
    ids: list[str],
    task: str,
    answers: pl.DataFrame,
    theirs: pl.DataFrame | None,
    reward: str,
    block: BenchmarkBlock,
    benchmark: str,
) -> Iterator[dict[str, Any]]:
    """P-Acc, where boxes say what is inside and what outside."""
    focus = {i: (here if base is None else base)[i]["afr"] for i in ids}
    known = {i: value for i, value in focus.items() if value is not None}
    if not known:
        return
    threshold = float(np.mean(list(known.values())))
    chosen = pl.Series([i for i, value in known.items() if value > threshold], dtype=pl.String)
    part = answers.filter(pl.col("task") == task, pl.col("example_id").is_in(chosen.implode()))
    if not part.height:
        return
    metric = next(iter(METRICS[reward]))
    base_part = None if theirs is None else _columns(_matched(theirs, part))
    values = _row(METRICS[reward][metric], _columns(part), base_part, block, (benchmark, task, "p_accuracy"))
    failed = int(part["reason"].is_not_null().sum())
    yield {
        "task": task, "view": block.views[0], "condition": "attention", "k": 1, "metric": "p_accuracy",
        "n": part.height, "n_failed": failed, **values,
    }  # fmt: skip


def _mean_of_column(columns: Any) -> np.ndarray:
    return np.asarray(columns["value"].mean(axis=-1))
