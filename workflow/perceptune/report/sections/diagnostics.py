"""The report's section on gradients by kind of pair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.tables.diagnostics import DIAGNOSTICS
from perceptune.report.read import frame
from perceptune.report.results import FEW_QUESTIONS

LABELS = {
    "gradient_difference": "norm of the difference",
    "gradient_cosine": "cosine",
    "gradient_chosen": "norm, chosen",
    "gradient_rejected": "norm, rejected",
    "fisher_trace": "Fisher trace, drawn tokens",
    "empirical_fisher_trace": "Fisher trace, given tokens",
    "image_dependence_chosen": "image dependence, chosen",
    "image_dependence_rejected": "image dependence, rejected",
    "image_dependence_difference": "its difference",
    "tokens_chosen": "tokens, chosen",
    "tokens_rejected": "tokens, rejected",
}
"""Metric to the title of its column, in order."""
POINTS = {"start": "before training", "end": "after training"}
KINDS = {"extremes": "best and worst"}


def diagnostics_section(tables: Mapping[str, Path]) -> dict[str, Any] | None:
    """Titles, and a row for each experiment, kind of pair, part of the weights and point in time; None
    without tables. Raises `UserError` for a broken table."""
    rows = [row for path in tables.values() for row in _rows(frame(path, DIAGNOSTICS))]
    return {"titles": list(LABELS.values()), "rows": rows} if rows else None


def _rows(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one experiment; both points in time of the same pairs follow each other."""
    groups = table.sort(pl.col("kind"), pl.col("weights"), maintain_order=True)
    for keys, part in groups.group_by("experiment", "kind", "view", "weights", "point", maintain_order=True):
        experiment, kind, view, weights, point = (str(key) for key in keys)
        cells = {row["metric"]: row for row in part.to_dicts()}
        yield {
            "experiment": experiment,
            "pairs": KINDS.get(kind, kind),
            "view": view,
            "weights": weights,
            "point": POINTS[point],
            "n": f"{part['n'][0]:,}",
            "cells": [_cell(cells.get(name)) for name in LABELS],
        }


def _cell(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """Value and interval as text; empty where a metric is not measured."""
    if row is None:
        return "", ""
    known = math.isfinite(row["ci_low"]) and row["n"] >= FEW_QUESTIONS
    return _number(row["value"]), f"[{_number(row['ci_low'])}, {_number(row['ci_high'])}]" if known else ""


def _number(value: float) -> str:
    """Three digits: values of different models differ by orders of magnitude."""
    whole = 100 <= abs(value) < 1e6
    return (f"{value:,.0f}" if whole else f"{value:.3g}").replace("-", "\u2212")
