"""Drawing in SVG: style, elements, scales, ticks and their labels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard
from xml.etree import ElementTree

from matplotlib.ticker import MaxNLocator

Svg = ElementTree.Element
Range = tuple[float, float]
Scale = Callable[[float], float]

CHARACTER = 6.1
"""Mean width in pixels of a character at the label size of 11 px."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f7f9;--ink:#16191d;--muted:#5d6672;--line:#dfe3e8;
--base:#6b7480;--s1:#0077bb;--s2:#e2661a;--s3:#d6246f;--s4:#1b95c5;--s5:#9a2b12;--truth:#007a6e;--rest:#858e99;--shade:#b4bcc6}
@media (prefers-color-scheme:dark){:root{--paper:#121519;--panel:#1a1e24;--ink:#e8ebef;--muted:#9aa4b1;--line:#2f363f;
--base:#a3adb9;--s1:#4aa8e8;--s2:#f08c4a;--s3:#f2649c;--s4:#5cc9f2;--s5:#e0694c;--truth:#2bb8a8;--rest:#687380;--shade:#4b545f}}
.chart{font:11px/1.2 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.chart text{fill:var(--muted);font-variant-numeric:tabular-nums}
.chart .title{fill:var(--ink);font-size:12.5px;font-weight:600}
.chart .label{fill:var(--ink)}
.chart .grid{stroke:var(--line);stroke-width:1}
.chart .zero{stroke:var(--muted);stroke-width:1}
.chart .curve{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.chart .raw{fill:none;stroke:var(--c);stroke-width:1;opacity:.28}
.chart .level{stroke:var(--c);stroke-width:1.5;stroke-dasharray:4 4}
.chart .band{fill:var(--c);opacity:.13}
.chart .mark{fill:var(--c);stroke:var(--paper);stroke-width:1}
.chart .hollow{fill:var(--paper);stroke:var(--c);stroke-width:1.8}
.chart .whisker{stroke:var(--c);stroke-width:2.4;stroke-linecap:round}
.chart .spread{stroke:var(--c);stroke-width:1.3}
.chart .link{stroke:var(--c);stroke-width:1.5}
.chart .bar{fill:var(--c)}
.chart .turn{stroke:var(--muted);stroke-width:1;stroke-dasharray:1 4}
.base{--c:var(--base)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.truth{--c:var(--truth)}.rest{--c:var(--rest)}
.chart .rest.curve,.chart .rest.level{stroke-width:1}.chart .paper{fill:var(--paper)}
"""


def labels(ticks: Sequence[float], scale: float = 1.0) -> list[str]:
    """The ticks times `scale` as text, with as many digits as it takes to tell them apart."""
    labels: list[str] = []
    for digits in range(3, 8):
        labels = [number(tick * scale, digits) for tick in ticks]
        if len(set(labels)) == len(labels):
            break
    return labels


def number(value: float, digits: int = 3) -> str:
    """The value with `digits` significant digits, or more before the decimal point."""
    shown = f"{value:.{digits}g}" if abs(value) < 999.5 else f"{value:,.{max(digits - 4, 0)}f}"
    return re.sub(r"e([+-])0*", r"e\1", shown).replace("e+", "e").replace("-", "\u2212")


def ticks_of(values: Range, whole: bool = False) -> list[float]:
    locator = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole)
    low, high = widened(values)
    digits = 12 - math.ceil(math.log10(max(abs(low), abs(high))))
    ticks = [float(round(t, digits)) + 0.0 for t in locator.tick_values(low, high)]
    # a range with a single integer has other ticks, too
    return [tick for tick in ticks if tick.is_integer()] if whole else ticks


def widened(values: Range) -> Range:
    """The range, widened if it is a single point, which cannot be scaled."""
    low, high = values
    return values if high > low else (low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5))


def told_apart(values: Range) -> Range:
    """The range, widened if its ends are equal to five digits: tick labels would repeat."""
    low, high = values
    return values if high - low > 1e-5 * max(abs(low), abs(high)) else widened((low, low))


def scale_of(values: Range, pixels: Range) -> Scale:
    low, high = widened(values)
    return lambda value: pixels[0] + (value - low) / (high - low) * (pixels[1] - pixels[0])


def finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def drawing(width: float, height: float, description: str | None = None) -> Svg:
    """An empty drawing with its description; without one, it is hidden from screen readers, because
    the text beside it says the same."""
    seen = {"role": "img", "aria-label": description} if description else {"aria-hidden": "true"}
    return ElementTree.Element("svg", {"class": "chart", "viewBox": f"0 0 {width:g} {height:g}", **seen})


def size_of(svg: Svg) -> tuple[float, float]:
    width, height = svg.attrib["viewBox"].split()[2:]
    return float(width), float(height)


def add(parent: Svg, tag: str, content: str | None = None, **attributes: str | float) -> Svg:
    named = {k.rstrip("_").replace("_", "-"): v if isinstance(v, str) else f"{v:.6g}" for k, v in attributes.items()}
    child = ElementTree.SubElement(parent, tag, named)
    child.text = content
    return child


def line(svg: Svg, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
    add(svg, "line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def with_zero(values: Range) -> Range:
    """The range, extended to include 0 and by 4 % at both ends."""
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    air = 0.04 * (high - low) or 0.05
    return low - air, high + air
