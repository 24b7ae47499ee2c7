"""Drawings in the cells of a table. The numbers stand beside them, so that screen readers skip them."""

from __future__ import annotations

from perceptune.report.svg import CHARACTER, Range, Scale, Svg, add, drawing, finite, line, number, scale_of, ticks_of

CELL_WIDTH, CELL_HEIGHT = 190, 20


def interval_cell(gain: float | None, low: float | None, high: float | None, axis: Range, style: str) -> Svg:
    """Table cell with a gain and its interval, see `interval`."""
    svg = drawing(CELL_WIDTH, CELL_HEIGHT)
    x_at = scale_of(axis, (8, CELL_WIDTH - 8))
    line(svg, x_at(0), 0, x_at(0), CELL_HEIGHT, "zero")
    interval(svg, x_at, CELL_HEIGHT / 2, (gain, low, high), style)
    return svg


def pair_cell(without: float | None, with_: float | None, axis: Range, style: str) -> Svg:
    """Table cell with two values of a policy: without the image (hollow) and with it (filled)."""
    svg = drawing(CELL_WIDTH, CELL_HEIGHT)
    x_at, y = scale_of(axis, (8, CELL_WIDTH - 8)), CELL_HEIGHT / 2
    line(svg, 8, y, CELL_WIDTH - 8, y, "grid")
    if finite(without) and finite(with_):
        line(svg, x_at(without), y, x_at(with_), y, f"link {style}")
    for value, kind in ((without, "hollow"), (with_, "mark")):
        if finite(value):
            add(svg, "circle", cx=x_at(value), cy=y, r=4.5, class_=f"{kind} {style}")
    return svg


def axis_cell(axis: Range, percent: bool) -> Svg:
    """Axis above a column of cells: round numbers near its ends, moved inwards where they do not fit,
    and 0 if there is room."""
    svg = drawing(CELL_WIDTH, 14)
    x_at = scale_of(axis, (8, CELL_WIDTH - 8))
    inside = [t for t in ticks_of(axis) if axis[0] <= t <= axis[1]]
    ends = [inside[0], inside[-1]] if len(inside) > 1 else inside
    room = all(abs(x_at(0) - x_at(t)) > 30 for t in ends)
    for value in [*ends, *([0.0] if axis[0] < 0 < axis[1] and room else [])]:
        shown = number(value * (100 if percent else 1))
        half = CHARACTER * len(shown) / 2
        add(svg, "text", shown, x=min(max(x_at(value), half), CELL_WIDTH - half), y=11, text_anchor="middle")
    return svg


def interval(
    svg: Svg, x_at: Scale, y: float, values: tuple[float | None, float | None, float | None], style: str
) -> None:
    """Draws a gain and its interval; the dot is hollow if the interval includes 0. Without an interval,
    a grey stroke marks the gain."""
    gain, low, high = values
    if not finite(gain):
        return
    if not finite(low) or not finite(high):
        line(svg, x_at(gain), y - 5, x_at(gain), y + 5, "whisker rest")
    else:
        line(svg, x_at(low), y, x_at(high), y, f"whisker {style}")
        sure = low > 0 or high < 0
        add(svg, "circle", cx=x_at(gain), cy=y, r=4.5, class_=f"{'mark' if sure else 'hollow'} {style}")
