"""The report's sections on metrics, training logs and selection statistics.

Each function turns data frames into plain values and drawings; the template only arranges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from perceptune.report import charts
from perceptune.report.cells import axis_cell, interval_cell, pair_cell
from perceptune.report.charts import HIGHLIGHTED
from perceptune.report.results import (
    SPREAD,
    Result,
    leading,
    measure,
    sampled,
    verdict,
    verdict_sentences,
    without_image,
)
from perceptune.report.sections.pairs import reason_columns
from perceptune.report.svg import Range, Svg, finite, with_zero

TRAINING_PANELS = {
    "loss": "loss",
    "margin": "margin, best minus worst answer",
    "ranking_accuracy": "best answer preferred over the worst",
    "chosen_logps": "log-prob of the best answer",
    "rejected_logps": "log-prob of the worst answer",
    "average_margin": "log-prob per token, best minus worst answer",
    "reference_point": "reference point of KTO",
    "robust_margin": "margin of the robust pairs",
    "conditional_margin": "best answer, image minus corrupted image",
    "anchor_reward": "implicit reward of the best answer",
    "chosen_enhanced_logps": "log-prob of the chosen answer, crop shown",
    "chosen_degraded_logps": "log-prob of the chosen answer, crop erased",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens per second",
    "response_tokens": "answer tokens per step",
    "data_wait_seconds": "seconds of a step spent waiting for images",
}
"""Titles of training metrics, in the order of their panels; metrics without a title follow."""
MOST_PANELS = 12
MOST_SHOWN = 4
"""Maximum number of metrics in the result table, which has to fit the page."""
MOST_SELECTIONS = 6
"""Maximum number of selections with histograms; the table lists all."""


def policy_styles(found: Sequence[Result], base: Mapping[str, str]) -> dict[str, str]:
    """Policy to its style: the first base model grey, up to five others coloured, the rest pale.

    With more than five others, those with the largest gains (see `ranked_by_gain`) are coloured.
    """
    bases = list(dict.fromkeys(base.values()))
    others = [p for p in [*bases[1:], *base] if p not in bases[:1]]
    others = list(dict.fromkeys(others))
    coloured = set(ranked_by_gain(others, found)[: len(HIGHLIGHTED)])
    free = iter(HIGHLIGHTED)
    styles = {p: next(free) if p in coloured else "rest" for p in others}
    return {**dict.fromkeys(bases[:1], "base"), **styles}


def ranked_by_gain(policies: Sequence[str], found: Sequence[Result]) -> list[str]:
    """Policies sorted by gain in the primary metric of the first result with one, largest first.

    Policies without a gain come last, in the given order.
    """

    def gain(policy: str) -> float:
        for result in found:
            row = result.rows.get(policy, {}).get(result.primary)
            if row is not None and finite(row["gain"]):
                return -row["gain"] if measure(result.primary).lower_is_better else row["gain"]
        return float("-inf")

    return sorted(policies, key=gain, reverse=True)


def result_section(
    metrics: pl.DataFrame, result: Result, styles: Mapping[str, str], notes: Mapping[str, str]
) -> dict[str, Any]:
    """The result table of one benchmark and task, with a drawing of each gain.

    The table has the first `MOST_SHOWN` metrics; a second one has the others. `notes` maps policies to
    a tag next to their name.
    """
    how, drawn = measure(result.primary), sampled(metrics, result)
    shown = result.leading[:MOST_SHOWN]
    gains = gain_frame(result)
    axis = with_zero(charts.finite_range(gains, ("gain", "low", "high")))
    rows = []
    for policy, cells in result.rows.items():
        row = cells.get(result.primary)
        trained = result.trained(policy)
        rows.append(
            {
                "policy": policy,
                "style": styles.get(policy, "rest"),
                "trained": trained,
                "note": notes.get(policy, ""),
                "sampled": _cell(drawn.rows.get(policy), drawn.metric) if drawn else None,
                "cells": [_cell(cells.get(metric), metric) for metric in shown],
                "drawing": _gain_cell(row, axis, styles.get(policy, "rest")) if trained else None,
                "failed": result.failed(policy),
                "n": max(int(r["n"]) for r in cells.values()),
            }
        )
    return {
        "result": result,
        "sentences": verdict_sentences(result),
        "measures": [measure(m) for m in shown],
        "folded": [_metric_row(result, m) for m in result.metrics if m not in shown],
        "unmeasured": _unmeasured(result),
        "primary": how,
        "sampled": measure(drawn.metric).headed(drawn.label) if drawn else "",
        "counts": len({row["n"] for row in rows}) > 1,
        "axis": axis_cell(axis, how.percent) if not gains.is_empty() else None,
        "rows": rows,
    }


def _unmeasured(result: Result) -> dict[str, list[str]]:
    """Reason why leading metrics were not measured to the labels of these metrics."""
    reasons: dict[str, list[str]] = {}
    for metric in result.leading:
        rows = [cells[metric] for cells in result.rows.values() if metric in cells]
        if reason := next((row["reason"] for row in rows if row["reason"]), None):
            reasons.setdefault(reason, []).append(measure(metric).label)
    return reasons


def _metric_row(result: Result, metric: str) -> dict[str, Any]:
    """One metric over all policies, for the table with one row per metric."""
    rows = [cells.get(metric) for cells in result.rows.values()]
    present = [row for row in rows if row is not None]
    starred = [verdict(row, metric) in ("better", "worse") for row in rows]
    return {
        "measure": measure(metric),
        "cells": [{**_cell(row, metric), "star": star} for row, star in zip(rows, starred, strict=True)],
        "n": max(int(row["n"]) for row in present),
        "failed": max(int(row["n_failed"]) for row in present),
        "reason": next((row["reason"] for row in present if row["reason"]), ""),
    }


def _gain_cell(row: Mapping[str, Any] | None, axis: Range, style: str) -> Svg | None:
    if row is None or not finite(row["gain"]):
        return None
    return interval_cell(row["gain"], row["gain_ci_low"], row["gain_ci_high"], axis, style)


def _cell(row: Mapping[str, Any] | None, metric: str) -> dict[str, str]:
    how = measure(metric)
    if row is None:
        return {"value": "n/a", "interval": "", "gain": "", "gain_interval": ""}
    return {
        "value": how.number(row["value"]),
        "interval": how.interval(row["ci_low"], row["ci_high"]),
        "gain": how.difference(row["gain"]) if finite(row["gain"]) else "",
        "gain_interval": how.difference_interval(row["gain_ci_low"], row["gain_ci_high"]),
    }


def gain_frame(result: Result) -> pl.DataFrame:
    """The gains in the primary metric: `policy`, `gain`, `low`, `high`."""
    rows = [(p, c.get(result.primary)) for p, c in result.rows.items() if result.trained(p)]
    values = [(p, r["gain"], r["gain_ci_low"], r["gain_ci_high"]) for p, r in rows if r is not None]
    schema = {"policy": pl.String, "gain": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(values, schema=schema, orient="row")


def gain_figure(found: Sequence[Result], styles: Mapping[str, str]) -> list[Svg]:
    """One forest plot per benchmark and task with a trained policy."""
    panels = []
    for result in found:
        gains, how = gain_frame(result), measure(result.primary)
        if not gains.is_empty():
            unit = " in points" if how.percent else ""
            direction = ", lower is better" if how.lower_is_better else ""
            label = f"gain over base in {how.label}{unit}{direction}"
            title = result.name
            panels.append(charts.forest_panel(gains, title=title, x_label=label, styles=styles, percent=how.percent))
    return panels


def curve_panels(metrics: pl.DataFrame, result: Result, styles: Mapping[str, str]) -> list[Svg]:
    """One panel per leading metric: best of k sampled answers, and their mean as a dashed line.

    Empty without sampled answers.
    """
    of_task = metrics.filter(
        pl.col("condition").is_in(["best_of_n", "mean_of_n"]),
        ~pl.col("metric").str.ends_with(SPREAD),
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
    )
    panels = []
    for metric in leading(of_task["metric"].unique(maintain_order=True).to_list()):
        how = measure(metric)
        frame = of_task.filter(pl.col("metric") == metric).select(
            "condition", series="policy", x=pl.col("k").cast(pl.Float64), y="value", low="ci_low", high="ci_high"
        )
        means = frame.filter(pl.col("condition") == "mean_of_n").sort("x").group_by("series").agg(pl.col("y").last())
        panels.append(
            charts.line_panel(
                frame.filter(pl.col("condition") == "best_of_n").drop("condition"),
                title=how.label,
                x_label="k, best of k answers",
                styles=styles,
                percent=how.percent,
                doubling=True,
                levels=dict(means.iter_rows()),
                about=result.name,
            )
        )
    return panels


def blank_section(metrics: pl.DataFrame, result: Result, styles: Mapping[str, str]) -> dict[str, Any] | None:
    """Scores with and without the image; None if the blank view was not evaluated."""
    pairs = without_image(metrics, result)
    if not pairs:
        return None
    how = measure(result.primary)
    values = [r["value"] for pair in pairs.values() for r in pair if finite(r["value"])]
    axis = (0.0, max([*values, 0.01]))
    rows = [
        {
            "policy": policy,
            "style": styles.get(policy, "rest"),
            "seen": _cell(seen, result.primary),
            "blank": _cell(blank, result.primary),
            "difference": how.difference(seen["value"] - blank["value"])
            if finite(seen["value"]) and finite(blank["value"])
            else "n/a",
            "drawing": pair_cell(blank["value"], seen["value"], axis, styles.get(policy, "rest")),
        }
        for policy, (seen, blank) in pairs.items()
    ]
    return {
        "result": result,
        "measure": how,
        "rows": rows,
        "axis": axis_cell(axis, how.percent),
    }


def training_panels(training: pl.DataFrame, styles: Mapping[str, str]) -> tuple[list[Svg], int]:
    """(one panel per training metric, the smoothing window in steps)."""
    steps = training["step"].n_unique() if not training.is_empty() else 0
    window = max(1, round(steps / 20))
    names = training["metric"].unique(maintain_order=True).to_list()
    known = [m for m in TRAINING_PANELS if m in names]
    panels = []
    for metric in [*known, *(m for m in names if m not in TRAINING_PANELS)][:MOST_PANELS]:
        frame = training.filter(pl.col("metric") == metric, pl.col("value").is_finite()).select(
            series="experiment", x=pl.col("step").cast(pl.Float64), y="value"
        )
        title = TRAINING_PANELS.get(metric, metric.replace("_", " "))
        smooth = charts.smoothed(frame, window)
        panels.append(charts.line_panel(smooth, title=title, x_label="step", styles=styles, whole=True))
    return panels, window


def selection_section(statistics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Kept and dropped groups per selection, and histograms of the first selections."""
    rows = [_selection_row(label, values) for label, values in statistics.items()]
    most = max([row["total"] for row in rows], default=0) or 1
    reasons, dropped = reason_columns([row["dropped"] for row in rows])
    rows = [{**row, "dropped": counts} for row, counts in zip(rows, dropped, strict=True)]
    shown = list(statistics.items())[:MOST_SELECTIONS]
    named = len(statistics) > 1
    panels = [{"label": n, "drawings": histogram_panels(v, n if named else "")} for n, v in shown]
    return {"rows": rows, "reasons": reasons, "most": most, "panels": panels, "hidden": len(statistics) - len(shown)}


def histogram_panels(values: Mapping[str, Any], label: str) -> list[Svg]:
    """Histograms of the rewards and margins in the statistics of a selection."""
    panels = []
    for key, title, x_label, style in (
        ("reward_histogram", "rewards of all answers", "reward", "s1"),
        ("margin_histogram", "best minus worst reward", "margin", "s2"),
    ):
        histogram = values.get(key)
        if histogram:
            head = f"{charts.shortened(label, 26)}: {title}" if label else title
            panels.append(
                charts.histogram_panel(
                    histogram["edges"], histogram["counts"], title=head, x_label=x_label, style=style
                )
            )
    return panels


def _selection_row(label: str, values: Mapping[str, Any]) -> dict[str, Any]:
    dropped = {str(reason): int(count) for reason, count in (values.get("dropped") or {}).items()}
    kept = int(values.get("kept", 0))
    means = {k: values.get(v) for k, v in (("distinct", "distinct_answers_per_group"), ("length", "mean_list_size"))}
    shown = {k: f"{v:.1f}" if finite(v) else "" for k, v in means.items()}
    return {"label": label, "kept": kept, "dropped": dropped, "total": kept + sum(dropped.values()), **shown}
