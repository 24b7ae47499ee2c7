"""What several pages have in common: parts of long lists, histograms, and drawings of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from markupsafe import Markup

from perceptune.commands.inspect import pictures
from perceptune.commands.inspect.answers import Bar
from perceptune.commands.inspect.filters import Address
from perceptune.commands.inspect.library import Library
from perceptune.report.charts import text
from perceptune.report.gallery import Outline
from perceptune.report.svg import Svg, add, labels

ROWS = 50
"""Rows of a page."""
WIDTH, HEIGHT, BOTTOM = 320, 84, 16
"""Of a histogram, and of its axis."""
NUMBERS = ("reward", "margin", "change", "length")
"""Orders by number; the others are by text."""
Page = tuple[str, dict[str, Any]]
"""A template and its values."""


@dataclass(frozen=True)
class Part:
    """One page of a long list."""

    count: int
    page: int
    pages: int

    @classmethod
    def of(cls, count: int, page: int) -> Part:
        """Page `page`, or the last one if there are fewer."""
        pages = max(1, -(-count // ROWS))
        return cls(count, min(page, pages), pages)

    @property
    def start(self) -> int:
        """The number of its first row, from 0."""
        return (self.page - 1) * ROWS


def orders(literal: Any) -> list[tuple[str, str]]:
    """The values of `sort` with what they are called."""
    found = [("", "order of the table")]
    for value in get_args(literal):
        name = value.removeprefix("-")
        ends = ("highest", "lowest") if name in NUMBERS else ("Z", "A")
        first, last = ends if value.startswith("-") else ends[::-1]
        if value:
            found.append((value, f"{name}, {first} first" if name in NUMBERS else f"{name}, {first} to {last}"))
    return found


def illustrated(
    library: Library, dataset: str | None, example: Mapping[str, Any] | None, outlines: Sequence[Outline]
) -> dict[str, Any]:
    """The example with its drawing, or why there is none."""
    known: dict[str, Any] = {"dataset": dataset, "example": example, "drawing": None, "more": []}
    if dataset is None or example is None:
        return known | {"problem": "the example is not in a table of examples any more"}
    problem = pictures.problem_of(library, dataset, example)
    drawing = None if problem else pictures.scene(dataset, example, outlines)
    more = [] if problem else pictures.more(dataset, example)
    return known | {"problem": problem, "drawing": drawing, "more": more}


def histogram_filter(title: str, bars: Sequence[Bar], wanted: Address, low: str, below: str) -> dict[str, Any]:
    """A histogram whose bars are links that set a range; the chosen range's bars are marked."""
    start, end = getattr(wanted, low), getattr(wanted, below)

    def link(bar: Bar) -> str:
        return "?" + wanted.query(**{low: bar.low, below: bar.below, "page": 1})

    def chosen(bar: Bar) -> bool:
        inside = start is None or bar.low >= start - 1e-9
        return inside and (end is None or (bar.below is not None and bar.below <= end + 1e-9))

    clear = None if start is None and end is None else "?" + wanted.query(**{low: None, below: None, "page": 1})
    return {"title": title, "svg": histogram(title, bars, link, chosen), "everything": clear}


def histogram(title: str, bars: Sequence[Bar], link: Callable[[Bar], str], chosen: Callable[[Bar], bool]) -> Markup:
    """The bars as SVG. Each is a link with an accessible name, over the whole height of the drawing, unless it is empty."""
    if not bars:
        return Markup("")
    name = f"{title}: histogram; each bar is a link that chooses its range"
    svg = Svg(
        "svg", {"class": "chart histogram", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "group", "aria-label": name}
    )
    most, step, top = max(1, *(bar.count for bar in bars)), WIDTH / len(bars), HEIGHT - BOTTOM
    for i, bar in enumerate(bars):
        words = f"{bar.low:g} " + ("or more" if bar.below is None else f"to {bar.below:g}") + f": {bar.count:,}"
        style = "chosen" if chosen(bar) else "other"
        named = {"href": link(bar), "aria_label": words}
        anchor = add(svg, "a", class_=style, **named) if bar.count else add(svg, "g", class_=style)
        add(anchor, "title", words)
        add(anchor, "rect", x=i * step, y=0, width=step, height=top, class_="hit")
        height = max(1.5, (top - 4) * bar.count / most) if bar.count else 0
        add(anchor, "rect", x=i * step + 1, y=top - height, width=step - 2, height=height, class_="bar")
    places = range(0, len(bars), len(bars) // 4)
    for i, label in zip(places, labels([bars[i].low for i in places]), strict=True):
        add(svg, "text", label, x=i * step + 1, y=HEIGHT - 3, text_anchor="start")
    return Markup(text(svg))
