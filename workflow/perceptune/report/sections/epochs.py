"""The report's section on experiments that keep the adapters of epochs: how attention and accuracy
change in the course of a training (P2-DPO, appendix H).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from perceptune.report import charts
from perceptune.report.results import Measure, Result, Row, measure
from perceptune.report.sections.attention import MEASURES, gain_cell, points_of

ATTENTION = {"image_share": Measure(MEASURES["image_share"]), "afr": Measure(MEASURES["afr"], percent=False)}


def epochs_section(
    metrics: pl.DataFrame,
    result: Result,
    epochs: Mapping[str, Mapping[str, float]],
    base: Mapping[str, str],
    styles: Mapping[str, str],
) -> dict[str, Any] | None:
    """The primary metric and attention by epoch: charts, and a row per experiment and epoch.

    `epochs` maps experiments to their policies and these to their epoch; `base` maps experiments to
    their base models, which are epoch 0. None if none of them was evaluated on this benchmark.
    """
    tested = {e: {base[e]: 0.0, **policies} for e, policies in epochs.items() if set(policies) & set(result.rows)}
    if not tested:
        return None
    attention = metrics.filter(
        pl.col("condition") == "attention",
        pl.col("metric").is_in(list(ATTENTION)),
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
    )
    found: dict[tuple[str, str], Row] = {(r["metric"], r["policy"]): r for r in attention.iter_rows(named=True)}
    found |= {(result.primary, p): cells[result.primary] for p, cells in result.rows.items() if result.primary in cells}
    shown = {result.primary: measure(result.primary), **ATTENTION}
    shown = {name: how for name, how in shown.items() if any(metric == name for metric, _ in found)}
    return {
        "result": result,
        "names": list(tested),
        "measures": list(shown.values()),
        "panels": [
            charts.line_panel(
                points_of([
                    {"series": experiment, "x": epoch, **found[name, policy]}
                    for experiment, policies in tested.items()
                    for policy, epoch in policies.items()
                    if (name, policy) in found
                ]),
                title=how.label,
                x_label="epoch (0 = base model)",
                styles=styles,
                percent=how.percent,
                whiskers=True,
                whole=True,
                about=result.name,
            )
            for name, how in shown.items()
        ],
        "rows": [
            {
                "name": experiment,
                "style": styles.get(experiment, "rest"),
                "epoch": f"{epoch:g}",
                "cells": [gain_cell(found.get((name, policy)), how) for name, how in shown.items()],
            }
            for experiment, policies in tested.items()
            for policy, epoch in policies.items()
        ],
    }  # fmt: skip
