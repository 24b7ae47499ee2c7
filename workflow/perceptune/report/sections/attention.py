"""The report's sections on the noise sweep and on attention."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from perceptune.report import charts
from perceptune.report.results import FIXED, Measure, Result, Row, measure
from perceptune.report.svg import Svg, finite

MEASURES = {
    "afr": "attention focus ratio",
    "afr_mean_of_layers": "AFR, mean over the layers",
    "afr_all_layers": "AFR of all layers together",
    "image_share": "attention on the image",
    "p_accuracy": "accuracy where the base AFR is high (P-Acc)",
    "p_accuracy_afr_14": "accuracy where the base AFR exceeds 14 (the paper's P-Acc)",
}
"""Labels of the attention metrics in the table; the other attention metrics are per layer."""
LAYERS = {
    "afr_layer_": "attention focus ratio by layer",
    "image_share_layer_": "attention on the image by layer",
}
"""Prefix of the metrics per layer to the title of their chart."""
GAINS = {"afr_layer_": "attention focus ratio", "image_share_layer_": "attention on the image"}
MOST_WHISKERS = 12
"""Maximum number of layers with one interval line each; more layers get a band."""


def noise_rows(
    metrics: pl.DataFrame, result: Result, noise: Mapping[str, float]
) -> tuple[list[float], dict[str, list[Row | None]]]:
    """The noise levels (sigma) of a benchmark, and policy to greedy primary rows per level.

    `noise` maps views to sigma. Both results are empty with fewer than two levels.
    """
    rows = metrics.filter(
        pl.col("condition") == "greedy",
        pl.col("view").is_in(list(noise)),
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
        pl.col("metric") == result.primary,
    )
    evaluated = set(rows["view"])
    if len(evaluated) < 2:
        return [], {}
    by_view = {(row["policy"], row["view"]): row for row in rows.iter_rows(named=True)}
    views = [view for view in noise if view in evaluated]
    return [noise[view] for view in views], {p: [by_view.get((p, view)) for view in views] for p in result.rows}


def noise_section(
    metrics: pl.DataFrame, result: Result, noise: Mapping[str, float], styles: Mapping[str, str]
) -> dict[str, Any] | None:
    """The primary metric over sigma: charts of value and gain by policy, and a table.

    None without a noise sweep.
    """
    levels, found = noise_rows(metrics, result, noise)
    if not found:
        return None
    how = measure(result.primary)
    rows = [
        {"series": policy, "x": sigma, **row}
        for policy, rows in found.items()
        for sigma, row in zip(levels, rows, strict=True)
        if row is not None
    ]
    x_label = "noise sigma (1 = white)"
    panel = charts.line_panel(
        points_of(rows),
        title=how.label,
        x_label=x_label,
        styles=styles,
        percent=how.percent,
        whiskers=True,
        about=result.name,
    )
    return {
        "result": result,
        "measure": how,
        "panel": panel,
        "gains": gain_panel(rows, how.label, x_label, styles, result.name, percent=how.percent),
        "levels": [f"{sigma:g}" for sigma in levels],
        "n": counts_of(row["n"] for row in rows),
        "rows": [
            {
                "policy": policy,
                "style": styles.get(policy, "rest"),
                "cells": [gain_cell(row, how) for row in rows],
            }
            for policy, rows in found.items()
        ],
    }


POINTS = {"series": pl.String, "x": pl.Float64, "y": pl.Float64, "low": pl.Float64, "high": pl.Float64}
"""Columns of the points of a line chart with intervals."""


def points_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Metric rows with `series` and `x` as points of a line chart."""
    values = [(row["series"], row["x"], row["value"], row["ci_low"], row["ci_high"]) for row in rows]
    return pl.DataFrame(values, schema=POINTS, orient="row")


def gain_panel(
    rows: Sequence[Mapping[str, Any]],
    label: str,
    x_label: str,
    styles: Mapping[str, str],
    about: str,
    *,
    percent: bool,
    whiskers: bool = True,
    whole: bool = False,
) -> Svg | None:
    """Chart of the gains over the base, in points for shares; None without gains."""
    scale = 100.0 if percent else 1.0
    gains = [
        (row["series"], row["x"], *(scale * row[c] if finite(row[c]) else None for c in GAIN))
        for row in rows
        if finite(row["gain"])
    ]
    if not gains:
        return None
    title = f"{label}: gain over the base{', points' if percent else ''}"
    frame = pl.DataFrame(gains, schema=POINTS, orient="row")
    return charts.line_panel(
        frame, title=title, x_label=x_label, styles=styles, zero=True, whiskers=whiskers, whole=whole, about=about
    )


GAIN = ("gain", "gain_ci_low", "gain_ci_high")


def counts_of(found: Iterator[int]) -> str:
    """`n = 40`, or `n = 38 to 40` if the counts differ."""
    counts = sorted({int(n) for n in found})
    return f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"


def _excludes_zero(row: Row) -> bool:
    """Whether the gain's interval excludes 0."""
    low, high = row["gain_ci_low"], row["gain_ci_high"]
    return finite(low) and finite(high) and (low > 0 or high < 0)


def gain_cell(row: Row | None, how: Measure) -> dict[str, str]:
    """A value with its interval and its gain, as texts."""
    if row is None:
        return {"value": "n/a", "interval": "", "gain": "", "gain_interval": ""}
    return {
        "value": how.number(row["value"]),
        "interval": how.interval(row["ci_low"], row["ci_high"]),
        "gain": _starred(how.difference(row["gain"]), row),
        "gain_interval": how.difference_interval(row["gain_ci_low"], row["gain_ci_high"]),
    }


def _starred(gain: str, row: Row) -> str:
    """A gain with its star; empty if the policy has no base model to compare with."""
    return "" if not finite(row["gain"]) else gain + (" *" if _excludes_zero(row) else "")


def attention_section(metrics: pl.DataFrame, result: Result, styles: Mapping[str, str]) -> dict[str, Any] | None:
    """Attention metrics on one benchmark and task: numbers per policy, and charts over the layers.

    None without attention metrics.
    """
    of_task = metrics.filter(
        pl.col("condition") == "attention",
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
    )
    rows = {(row["policy"], row["metric"]): row for row in of_task.iter_rows(named=True)}
    present = [metric for metric in MEASURES if any((p, metric) in rows for p in result.rows)]
    if not present:
        return None
    drawn = [panels for prefix in LAYERS if (panels := _layer_panels(of_task, prefix, styles, result.name)) is not None]
    return {
        "result": result,
        "measures": [MEASURES[metric] for metric in present],
        "counts": [counts_of(row["n"] for (_, m), row in rows.items() if m == metric) for metric in present],
        "rows": [
            {
                "policy": policy,
                "style": styles.get(policy, "rest"),
                "cells": [_attention_cell(rows.get((policy, metric)), metric) for metric in present],
            }
            for policy in result.rows
        ],
        "panels": drawn,
        "n": max(int(row["n"]) for row in rows.values()),
    }


def _attention_cell(row: Row | None, metric: str) -> dict[str, str]:
    """Shares in percent with gains in points; the ratio with two decimals."""
    if row is None:
        return {"value": "n/a", "interval": "", "gain": "", "gain_interval": ""}
    percent = not metric.startswith("afr")

    def number(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.2f}"

    def difference(value: float) -> str:
        return charts.signed(value, percent, 1 if percent else 2)

    interval, gains = (row["ci_low"], row["ci_high"]), (row["gain_ci_low"], row["gain_ci_high"])
    return {
        "value": "n/a" if not finite(row["value"]) else number(row["value"]) + (" %" if percent else ""),
        "interval": f"[{', '.join(map(number, interval))}]" if all(map(finite, interval)) else "",
        "gain": difference(row["gain"]) if finite(row["gain"]) else "",
        "gain_interval": f"[{', '.join(map(difference, gains))}]" + (" *" if _excludes_zero(row) else "")
        if all(map(finite, gains))
        else "",
    }


def _layer_panels(
    of_task: pl.DataFrame, prefix: str, styles: Mapping[str, str], about: str
) -> tuple[Svg, Svg | None] | None:
    """(values by layer, gains over the base by layer); None with fewer than two layers."""
    layers = of_task.filter(pl.col("metric").str.starts_with(prefix))
    if layers["metric"].n_unique() < 2:
        return None
    rows = [
        {"series": row["policy"], "x": float(row["metric"].removeprefix(prefix)), **row}
        for row in layers.iter_rows(named=True)
    ]
    percent = prefix.startswith("image_share")
    few = layers["metric"].n_unique() <= MOST_WHISKERS
    values = charts.line_panel(
        points_of(rows),
        title=LAYERS[prefix],
        x_label="layer",
        styles=styles,
        percent=percent,
        whiskers=few,
        whole=True,
        about=about,
    )
    return values, gain_panel(rows, GAINS[prefix], "layer", styles, about, percent=percent, whole=True, whiskers=few)


def sweep_lines(metrics: pl.DataFrame, found: Sequence[Result], noise: Mapping[str, float], width: int) -> list[str]:
    """The noise sweep and the attention focus ratio as plain text of at most `width` columns.

    Empty without a sweep and attention metrics.
    """
    lines: list[str] = []
    for result in found:
        levels, rows = noise_rows(metrics, result, noise)
        focus = _focus(metrics, result)
        if not rows and not focus:
            continue
        how = measure(result.primary)
        header = [f"s={sigma:g}" for sigma in levels] + (["AFR"] if focus else [])
        cells = {
            policy: [_plain(gain_cell(row, how)) for row in rows.get(policy, [])]
            + ([_focus_cell(focus.get(policy))] if focus else [])
            for policy in result.rows
        }
        task = f"{result.benchmark} / {result.task}"
        title = f"{task}: {how.heading} under noise of sigma s" if rows else f"{task}: attention"
        lines += ["", *textwrap.wrap(title, width, break_on_hyphens=False)]
        lines += text_columns(header, cells, width)
        wrapped = textwrap.wrap(_focus_gains(focus), width, subsequent_indent="  ", break_on_hyphens=False)
        lines += [line.replace(FIXED, " ") for line in wrapped]
    return lines


def text_columns(
    header: Sequence[str], rows: Mapping[str, Sequence[str]], width: int, named: str = "policy"
) -> Iterator[str]:
    """The lines of a table; columns that do not fit into `width` continue below."""
    name_width = min(max(len(named), *map(len, rows)), 30)
    widths = [max(len(title), *(len(cells[i]) for cells in rows.values())) for i, title in enumerate(header)]
    start = 0
    while start < len(header):
        end, used = start + 1, name_width + 2 + widths[start]
        while end < len(header) and used + 2 + widths[end] <= width:
            used += 2 + widths[end]
            end += 1
        for name, texts in [(named, header), *rows.items()]:
            shown = charts.shortened(name, name_width).replace("\u2026", "~")
            parts = [shown.ljust(name_width), *(texts[i].ljust(widths[i]) for i in range(start, end))]
            yield "  ".join(parts).rstrip()
        start = end


def _plain(cell: Mapping[str, str]) -> str:
    """The value, with a star if the gain's interval excludes 0."""
    return cell["value"] + ("*" if cell["gain"].endswith("*") else "")


def _focus(metrics: pl.DataFrame, result: Result) -> dict[str, Row]:
    """Policy to the row of its attention focus ratio."""
    rows = metrics.filter(
        pl.col("condition") == "attention",
        pl.col("metric") == "afr",
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
    )
    return {row["policy"]: row for row in rows.iter_rows(named=True)}


def _focus_cell(row: Row | None) -> str:
    cell = _attention_cell(row, "afr")
    star = " *" if row is not None and _excludes_zero(row) else ""
    return f"{cell['value']} {cell['gain']}{star}".strip().replace("\u2212", "-")


def _focus_gains(focus: Mapping[str, Row]) -> str:
    """The gains in the attention focus ratio with their intervals, in one line."""
    cells = {policy: _attention_cell(row, "afr") for policy, row in focus.items()}
    gains = [
        f"{policy} {c['gain']} {c['gain_interval']}".replace(" ", FIXED) for policy, c in cells.items() if c["gain"]
    ]
    if not gains:
        return ""
    counts = counts_of(row["n"] for row in focus.values())
    return f"AFR (attention focus ratio, {counts}), gain: {', '.join(gains)}.".replace("\u2212", "-")
