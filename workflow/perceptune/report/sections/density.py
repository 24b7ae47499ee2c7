"""The report's section on the density of pages: metrics by quarter of a benchmark's pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from perceptune.core.benchmarks.density import DENSITY
from perceptune.report import charts
from perceptune.report.results import Result, Row, measure
from perceptune.report.sections.attention import gain_cell, gain_panel, points_of

X_LABEL = "characters per page, mean of the quarter"


def density_section(metrics: pl.DataFrame, result: Result, styles: Mapping[str, str]) -> dict[str, Any] | None:
    """The leading metrics by density of the page: charts of value and gain of the primary one, and a
    table of each.

    None for benchmarks that are not measured by density.
    """
    rows = metrics.filter(
        pl.col("condition") == DENSITY,
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
    )
    if rows.is_empty():
        return None
    found = {(row["policy"], row["metric"], row["k"]): row for row in rows.iter_rows(named=True)}
    lengths = {(metric, level): row["value"] for (_, metric, level), row in found.items()}  # the same for all policies
    levels = sorted({level for _, level in lengths})
    how = measure(result.primary)
    drawn = [
        {"series": policy, "x": lengths["characters", level], **row}
        for policy in result.rows
        for level in levels
        if (row := found.get((policy, result.primary, level))) is not None
    ]
    panel = charts.line_panel(
        points_of(drawn),
        title=how.label,
        x_label=X_LABEL,
        styles=styles,
        percent=how.percent,
        whiskers=True,
        about=result.name,
    )
    measured = [m for m in result.leading if any(row["value"] is not None for row in _of(found, m))]
    return {
        "result": result,
        "panel": panel,
        "gains": gain_panel(drawn, how.label, X_LABEL, styles, result.name, percent=how.percent),
        "levels": [
            {
                "characters": "{:,.0f} to {:,.0f}".format(
                    lengths["characters_min", level], lengths["characters_max", level]
                ),
                "n": max(int(row["n"]) for (_, _, k), row in found.items() if k == level),
            }
            for level in levels
        ],
        "tables": [
            {
                "measure": measure(metric),
                "rows": [
                    {
                        "policy": policy,
                        "style": styles.get(policy, "rest"),
                        "cells": [gain_cell(found.get((policy, metric, level)), measure(metric)) for level in levels],
                    }
                    for policy in result.rows
                ],
            }
            for metric in measured
        ],
    }


def _of(found: Mapping[tuple[str, str, int], Row], metric: str) -> list[Row]:
    return [row for (_, name, _), row in found.items() if name == metric]
