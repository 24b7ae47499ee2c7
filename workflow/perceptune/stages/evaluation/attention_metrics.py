"""Attention metrics: rows of the metrics table from attention maps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.io import read_table
from perceptune.stages.evaluation.metric_rows import Measuring, matched, mean_of_column, measured_row, together

READ = ["example_id", "afr", "layer_afr", "global_afr", "image_share", "reason"]
"""Columns of the table of attention maps that metrics use."""
PAPERS_AFR = 14.0
"""The AFR above which P2-DPO counts an example for P-Acc."""


def attention_rows(
    maps: tuple[Path, Path | None],
    scored: pl.DataFrame,
    base_scored: pl.DataFrame | None,
    measured: Measuring,
    benchmark: str,
    view: str,
) -> Iterator[dict[str, Any]]:
    """Per task: attention focus ratio and image share, of the map and of the layers, and P-Acc.

    P-Acc is the accuracy on the examples whose AFR under the *base model* is above a threshold: the
    same examples for every policy. `p_accuracy` uses the base model's mean AFR, `p_accuracy_afr_14`
    the paper's threshold; it has no row if no example is above it.
    """
    table, base_table = (None if path is None else read_table(path, ATTENTION, READ).to_pylist() for path in maps)
    answers = scored.filter(condition="greedy", view=view)
    task_of = dict(answers.select("example_id", "task").iter_rows())
    policy = {row["example_id"]: row for row in table or [] if row["reason"] is None}
    base = None if base_table is None else {row["example_id"]: row for row in base_table if row["reason"] is None}
    for task in dict.fromkeys(task_of.values()):
        ids = [i for i in policy if task_of.get(i) == task and (base is None or i in base)]
        fixed = {"task": task, "view": view, "condition": "attention", "k": 1}
        address = (benchmark, str(task), view, "attention")
        numbers = _values(policy, base, ids)
        yield from together(partial(_row, fixed, len(ids), *one, measured.block, address) for one in numbers.items())
        yield from _p_accuracy(policy, base, ids, str(task), answers, base_scored, measured, benchmark)


def _row(
    fixed: dict[str, Any],
    asked: int,
    metric: str,
    numbers: tuple[list[float], list[float] | None],
    block: BenchmarkBlock,
    address: tuple[str, ...],
) -> dict[str, Any]:
    """The row of a metric; those of the `asked` examples without a number failed."""
    own, base = ({} if c is None else {"value": np.array(c, dtype=float)} for c in numbers)
    count = {"n": len(numbers[0]), "n_failed": asked - len(numbers[0])}
    return {
        **fixed,
        "metric": metric,
        **count,
        **measured_row(mean_of_column, own, base or None, block, (*address, metric)),
    }


def _values(
    policy: dict[str, dict[str, Any]], base: dict[str, dict[str, Any]] | None, ids: list[str]
) -> dict[str, tuple[list[float], list[float] | None]]:
    """Metric to its values for policy and base model, on the examples where both have one."""
    found: dict[str, tuple[list[float], list[float] | None]] = {}

    def add(metric: str, value: Any) -> None:
        pairs = [(value(policy[i]), value(policy[i] if base is None else base[i])) for i in ids]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if known:
            found[metric] = ([a for a, _ in known], None if base is None else [b for _, b in known])

    def of_layer(column: str, layer: int) -> Any:
        return lambda row: None if row[column] is None else row[column][layer]

    def average(column: str) -> Any:
        """The mean over the layers; None if a layer has no value."""
        return lambda row: None if None in (row[column] or [None]) else float(np.mean(row[column]))

    layers = max((len(policy[i]["image_share"]) for i in ids), default=0)
    add("afr", lambda row: row["afr"])
    add("afr_all_layers", lambda row: row["global_afr"])
    add("afr_mean_of_layers", average("layer_afr"))
    add("image_share", average("image_share"))
    for layer in range(layers):
        add(f"afr_layer_{layer:02}", of_layer("layer_afr", layer))
        add(f"image_share_layer_{layer:02}", of_layer("image_share", layer))
    return found


def _p_accuracy(
    policy: dict[str, dict[str, Any]],
    base: dict[str, dict[str, Any]] | None,
    ids: list[str],
    task: str,
    answers: pl.DataFrame,
    base_scored: pl.DataFrame | None,
    measured: Measuring,
    benchmark: str,
) -> Iterator[dict[str, Any]]:
    """P-Acc with both thresholds; requires boxes."""
    focus = {i: (policy if base is None else base)[i]["afr"] for i in ids}
    known = {i: value for i, value in focus.items() if value is not None}
    if not known:
        return
    mean = float(np.mean(list(known.values())))
    for metric, threshold in (("p_accuracy", mean), (f"p_accuracy_afr_{PAPERS_AFR:g}", PAPERS_AFR)):
        chosen = pl.Series([i for i, value in known.items() if value > threshold], dtype=pl.String)
        part = answers.filter(pl.col("task") == task, pl.col("example_id").is_in(chosen.implode()))
        if not part.height:
            continue
        base_part = None if base_scored is None else matched(base_scored, part)
        values = measured.primary(part, base_part, (benchmark, task, metric))
        failed = int(part["reason"].is_not_null().sum())
        yield {
            "task": task, "view": part["view"][0], "condition": "attention", "k": 1, "metric": metric,
            "n": part.height, "n_failed": failed, **values,
        }  # fmt: skip
