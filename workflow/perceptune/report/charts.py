"""Charts as SVG, pure functions of tidy polars frames.

Colours are CSS variables, so that one drawing works on light and dark pages. `styles` maps a series
to its class: `base`, `s1` to `s5`, or `rest` for lines that only give context. The palette is Paul
Tol's "vibrant" scheme, which is safe for common colour vision deficiencies; the markers also
differ. Values that are null or not finite are not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from xml.etree import ElementTree

import polars as pl

from perceptune.report.cells import interval
from perceptune.report.svg import (
    CHARACTER,
    STYLE,
    Range,
    Scale,
    Svg,
    add,
    drawing,
    finite,
    labels,
    line,
    number,
    path,
    scale_of,
    size_of,
    ticks_of,
    told_apart,
    widened,
    with_zero,
)

HIGHLIGHTED = ("s1", "s2", "s3", "s4", "s5")
WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 44
LONGEST_TITLE = 55
"""Characters of a panel's title; the panel's description has all of them."""


def line_panel(
    frame: pl.DataFrame,
    *,
    title: str,
    x_label: str,
    styles: Mapping[str, str],
    percent: bool = False,
    doubling: bool = False,
    levels: Mapping[str, float | None] | None = None,
    whiskers: bool = False,
    whole: bool = False,
    zero: bool = False,
    turns: Sequence[float] = (),
    start: float | None = None,
    about: str = "",
) -> Svg:
    """Curves of `frame`: `series`, `x`, `y`, optional `low`, `high` (band), `raw` (thin line).

    Args:
        percent: Show shares as percentages.
        doubling: Logarithmic x axis with one tick per x value, and markers.
        levels: Series to y of a dashed line over the whole width.
        whiskers: For few x values and overlapping series: a marker and a vertical interval line at
            each value instead of a band, with the series shifted slightly apart.
        whole: Ticks only at integer x.
        zero: Include y = 0.
        turns: x of thin vertical lines; those outside the x range are not drawn.
        start: x of a point shared by several curves. Only a series without other points gets a
            marker and an interval there.
        about: What the chart is about, for its description; a heading says it to those who see it.
    """
    frame = frame.filter(pl.col("x").is_finite() & pl.col("y").is_finite())
    svg = _panel(title, _course(frame, f"{f'{about}, ' if about else ''}{title} by {x_label}", styles, percent))
    if frame.is_empty():
        add(svg, "text", "no values", x=WIDTH / 2, y=HEIGHT / 2, text_anchor="middle")
        return svg
    xs = sorted(frame["x"].unique().to_list())
    place: Scale = math.log2 if doubling else float
    x_range = widened((place(xs[0]), place(xs[-1])))
    level_of = {s: y for s, y in (levels or {}).items() if finite(y)}
    low, high = finite_range(frame, ("y", "low", "high"))
    shown = [low, high, *level_of.values(), *([0.0] if zero else []), *([0.1] if low == high == 0 else [])]
    y_ticks = ticks_of(told_apart((min(shown), max(shown))))
    if percent and high <= 1:
        y_ticks = [t for t in y_ticks if t <= 1]
    air = (10 if start is None else 16) if whiskers else 0
    x_at = scale_of(x_range, (LEFT + air, WIDTH - RIGHT - air))
    y_at = scale_of((y_ticks[0], y_ticks[-1]), (HEIGHT - BOTTOM, TOP))
    _y_axis(svg, y_ticks, y_at, percent, zero)
    x_ticks = xs if doubling else [t for t in ticks_of(x_range, whole) if x_range[0] <= t <= x_range[1]]
    _x_axis(svg, x_ticks, lambda x: x_at(place(x)), x_label)
    for turn in [t for t in turns if x_range[0] <= place(t) <= x_range[1]]:
        line(svg, x_at(place(turn)), TOP, x_at(place(turn)), HEIGHT - BOTTOM, "turn")
    order = sorted(frame["series"].unique(maintain_order=True).to_list(), key=lambda s: styles.get(s, "rest") != "rest")
    going = set(frame.filter(pl.col("x") != start)["series"]) if start is not None else set(order)
    coloured = [s for s in order if s in going and styles.get(s, "rest") != "rest"]
    gap = min([x_at(b) - x_at(a) for a, b in pairwise(map(place, xs))], default=0.0)
    shift = 3.0 if start is None else min(8.0, max(3.0, 0.5 * gap / max(len(coloured), 1)))
    for series in order:
        offset = shift * (coloured.index(series) - (len(coloured) - 1) / 2) if whiskers and series in coloured else 0.0
        points = frame.filter(pl.col("series") == series).sort("x")
        if series in level_of:
            line(
                svg,
                LEFT,
                y_at(level_of[series]),
                WIDTH - RIGHT,
                y_at(level_of[series]),
                f"level {styles.get(series, 'rest')}",
            )
        _curve(
            svg,
            points,
            styles.get(series, "rest"),
            _shifted(lambda x: x_at(place(x)), offset, start),
            y_at,
            marked=doubling or whiskers,
            with_raw=len(order) <= 6,
            whiskers=whiskers,
            bare=start if series in going else None,
        )
    return svg


def histogram_panel(
    edges: Sequence[float], counts: Sequence[int], *, title: str, x_label: str, style: str = "s1"
) -> Svg:
    """Histogram with `counts` (k) between `edges` (k + 1)."""
    svg = _panel(title, f"{title}: histogram of {sum(counts):,} values from {edges[0]:g} to {edges[-1]:g}")
    if not counts or not sum(counts):
        add(svg, "text", "no values", x=WIDTH / 2, y=HEIGHT / 2, text_anchor="middle")
        return svg
    y_ticks = ticks_of((0.0, float(max(counts))), whole=True)
    x_at = scale_of((edges[0], edges[-1]), (LEFT, WIDTH - RIGHT))
    y_at = scale_of((0.0, y_ticks[-1]), (HEIGHT - BOTTOM, TOP))
    _y_axis(svg, y_ticks, y_at, percent=False)
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            left, width, top = x_at(low) + 0.75, x_at(high) - x_at(low) - 1.5, y_at(count)
            bar = add(
                svg, "rect", x=left, y=top, width=max(width, 1), height=y_at(0) - top, class_=f"bar {style}", rx=1
            )
            add(bar, "title", f"{low:g} to {high:g}: {count:,}")
    _x_axis(svg, [t for t in ticks_of((edges[0], edges[-1])) if edges[0] <= t <= edges[-1]], x_at, x_label)
    return svg


def forest_panel(frame: pl.DataFrame, *, title: str, x_label: str, styles: Mapping[str, str], percent: bool) -> Svg:
    """Forest plot of `frame` (`policy`, `gain`, `low`, `high`) with one row per policy."""
    left, row, top = 210, 22, 40
    width, height = 620, top + row * max(frame.height, 1) + 44
    gains = frame.select("policy", "gain", "low", "high").rows()
    svg = drawing(width, height, f"{title}, {x_label}: {'; '.join(_gain(percent, *values) for values in gains)}")
    add(svg, "text", title, x=8, y=18, class_="title")
    ticks = ticks_of(with_zero(finite_range(frame, ("gain", "low", "high"))))
    x_at, bottom = scale_of((ticks[0], ticks[-1]), (left, width - 24)), height - 38
    for tick in ticks:
        line(svg, x_at(tick), top - 8, x_at(tick), bottom, "zero" if tick == 0 else "grid")
        add(svg, "text", signed(tick, percent, 0 if percent else 2), x=x_at(tick), y=bottom + 14, text_anchor="middle")
    add(svg, "text", shortened(x_label, 70), x=(left + width - 24) / 2, y=height - 6, text_anchor="middle")
    for i, (policy, gain, low, high) in enumerate(gains):
        y = top + row * (i + 0.5)
        add(svg, "text", shortened(policy, 32), x=left - 12, y=y + 4, text_anchor="end", class_="label")
        interval(svg, x_at, y, (gain, low, high), styles.get(policy, "rest"))
    return svg


def figure(panels: Sequence[Svg], legend: Mapping[str, str], columns: int = 3) -> str:
    """A stand-alone SVG file with style sheet: a legend (name to style) above panels."""
    columns = max(1, min(columns, len(panels)))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    width = max([sum(size_of(p)[0] for p in row) for row in rows] + [WIDTH])
    svg = drawing(width, 0, "; ".join(panel.get("aria-label", "") for panel in panels) or "nothing to show")
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    add(svg, "style", STYLE)
    paper = add(svg, "rect", width="100%", height="100%", class_="paper")
    y = _legend(svg, legend, width)
    if not panels:
        add(svg, "text", "nothing to show", x=width / 2, y=y + 40, text_anchor="middle")
        y += 80
    for row in rows:
        x = 0.0
        for panel in row:
            panel.set("x", f"{x:g}")
            panel.set("y", f"{y:g}")
            panel.set("width", f"{size_of(panel)[0]:g}")
            panel.set("height", f"{size_of(panel)[1]:g}")
            svg.append(panel)
            x += size_of(panel)[0]
        y += max(size_of(panel)[1] for panel in row)
    svg.set("viewBox", f"0 0 {width:g} {y:g}")
    svg.set("width", f"{width:g}")
    svg.set("height", f"{y:g}")
    paper.set("height", f"{y:g}")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + text(svg) + "\n"


def text(svg: Svg) -> str:
    """The drawing as markup."""
    return ElementTree.tostring(svg, encoding="unicode")


def smoothed(frame: pl.DataFrame, window: int) -> pl.DataFrame:
    """Centred rolling mean of `y` over `window` points per series; the original is `raw`."""
    return frame.sort("series", "x").with_columns(
        raw=pl.col("y"), y=pl.col("y").rolling_mean(window, center=True, min_samples=1).over("series")
    )


def finite_range(frame: pl.DataFrame, columns: Iterable[str]) -> Range:
    """Minimum and maximum finite value of the existing `columns`; (0, 1) without finite values."""
    values = [
        v
        for c in columns
        if c in frame.columns
        for v in frame[c].cast(pl.Float64).to_list()
        if v is not None and math.isfinite(v)
    ]
    return (min(values), max(values)) if values else (0.0, 1.0)


def signed(value: float, percent: bool, digits: int) -> str:
    """A difference with its sign (typographic minus; none for 0), in points if `percent`."""
    shown = f"{abs(value) * (100 if percent else 1):.{digits}f}"
    if float(shown) == 0:
        return shown
    return ("+" if value > 0 else "\u2212") + shown


def shortened(name: str, limit: int) -> str:
    """A name with its middle elided, because sweep names differ at their ends."""
    return name if len(name) <= limit else f"{name[: limit // 3]}\u2026{name[-(limit - limit // 3 - 1) :]}"


def _curve(
    svg: Svg,
    points: pl.DataFrame,
    style: str,
    x_at: Scale,
    y_at: Scale,
    *,
    marked: bool,
    with_raw: bool,
    whiskers: bool,
    bare: float | None = None,
) -> None:
    """Draws one series; at x = `bare` without marker and interval."""
    at = {
        c: _thinned([(x_at(x), y_at(v)) for x, v in points.select("x", c).iter_rows() if finite(v)])
        for c in points.columns[2:]
    }
    if style != "rest":
        if whiskers and "low" in points.columns and "high" in points.columns:
            for x, low, high in points.select("x", "low", "high").iter_rows():
                if finite(low) and finite(high) and x != bare:
                    line(svg, x_at(x), y_at(low), x_at(x), y_at(high), f"spread {style}")
        elif at.get("low") and at.get("high"):
            add(svg, "polygon", points=path(at["low"] + at["high"][::-1]), class_=f"band {style}")
        if with_raw and at.get("raw"):
            bottom, top = HEIGHT - BOTTOM, TOP
            kept = [(x, min(max(y, top), bottom)) for x, y in at["raw"]]
            add(svg, "polyline", points=path(kept), class_=f"raw {style}")
    add(svg, "polyline", points=path(at["y"]), class_=f"curve {style}")
    if len(at["y"]) == 1 or (marked and style != "rest"):
        for x, y in points.filter(pl.col("x").ne_missing(bare)).select("x", "y").iter_rows():
            _marker(svg, x_at(x), y_at(y), style)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most two points per pixel column, the lowest and the highest; more cannot be told apart."""
    found = []
    for _, column in groupby(points, lambda point: math.floor(point[0])):
        inside = list(column)
        ends = {min(inside, key=lambda p: p[1]), max(inside, key=lambda p: p[1])}
        found += inside if len(inside) <= 2 else [point for point in inside if point in ends]
    return found


def _shifted(x_at: Scale, pixels: float, start: float | None) -> Scale:
    """The scale, shifted to the right except at `start`."""
    return lambda x: x_at(x) + (0.0 if x == start else pixels)


def _marker(svg: Svg, x: float, y: float, style: str) -> None:
    """Draws a marker whose shape also depends on the style."""
    corners = {"s2": 4, "s3": 3, "s4": -4, "s5": -3}.get(style)
    if corners is None:
        add(svg, "circle", cx=x, cy=y, r=3.6, class_=f"mark {style}")
        return
    turn = {4: math.pi / 4, 3: -math.pi / 2, -4: 0.0, -3: math.pi / 2}[corners]
    angles = [turn + 2 * math.pi * i / abs(corners) for i in range(abs(corners))]
    add(
        svg,
        "polygon",
        points=path((x + 4.6 * math.cos(a), y + 4.6 * math.sin(a)) for a in angles),
        class_=f"mark {style}",
    )


def _legend(svg: Svg, legend: Mapping[str, str], width: float) -> float:
    """Draws the legend, wrapped to `width`; returns its height."""
    x, y = 12.0, 18.0
    for name, style in legend.items():
        shown = shortened(name, 40)
        step = 30 + CHARACTER * len(shown)
        if x > 12 and x + step > width:
            x, y = 12.0, y + 18
        line(svg, x, y - 4, x + 14, y - 4, f"whisker {style}")
        _marker(svg, x + 7, y - 4, style)
        add(svg, "text", shown, x=x + 20, y=y, class_="label")
        x += step
    return y + 10 if legend else 0.0


def _course(frame: pl.DataFrame, what: str, styles: Mapping[str, str], percent: bool) -> str:
    """The first and last value of every coloured series, for readers who do not see the chart."""
    said = []
    for (series,), points in frame.sort("x").group_by("series", maintain_order=True):
        if styles.get(str(series), "rest") != "rest":
            first, last = (number(points["y"][i] * (100 if percent else 1)) for i in (0, -1))
            said.append(
                f"{series} " + (first if points.height == 1 else f"{first} to {last}") + (" %" if percent else "")
            )
    return f"{what}: {'; '.join(said)}" if said else what


def _gain(percent: bool, policy: str, gain: float | None, low: float | None, high: float | None) -> str:
    shown = [signed(v, percent, 1 if percent else 3) if finite(v) else "n/a" for v in (gain, low, high)]
    return f"{policy} {shown[0]}" + (f" [{shown[1]}, {shown[2]}]" if finite(low) and finite(high) else "")


def _panel(title: str, description: str) -> Svg:
    svg = drawing(WIDTH, HEIGHT, description)
    add(svg, "text", shortened(title, LONGEST_TITLE), x=8, y=16, class_="title")
    return svg


def _y_axis(svg: Svg, ticks: Sequence[float], y_at: Scale, percent: bool, zero: bool = False) -> None:
    for tick, label in zip(ticks, labels(ticks, 100 if percent else 1), strict=True):
        line(svg, LEFT, y_at(tick), WIDTH - RIGHT, y_at(tick), "zero" if zero and tick == 0 else "grid")
        add(svg, "text", f"{label} %" if percent else label, x=LEFT - 6, y=y_at(tick) + 4, text_anchor="end")


def _x_axis(svg: Svg, ticks: Sequence[float], x_at: Scale, label: str) -> None:
    for tick, shown in zip(ticks, labels(ticks), strict=True):
        x = min(x_at(tick), WIDTH - CHARACTER * len(shown) / 2)
        add(svg, "text", shown, x=x, y=HEIGHT - BOTTOM + 15, text_anchor="middle")
    add(svg, "text", label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle")
