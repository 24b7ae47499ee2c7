"""Charts: positions, styles, and values that are not drawn."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from perceptune.report import cells, charts
from perceptune.report.svg import CHARACTER, STYLE, Svg, labels

STYLES = {"tiny": "base", "dpo": "s1", "perpo": "s2"}


def curves(**values: list[float]) -> pl.DataFrame:
    rows = [(name, float(x), y) for name, ys in values.items() for x, y in enumerate(ys, start=1)]
    return pl.DataFrame(rows, schema={"series": pl.String, "x": pl.Float64, "y": pl.Float64}, orient="row")


def of_class(svg: Svg, name: str) -> list[Svg]:
    return [e for e in svg.iter() if name in e.get("class", "").split()]


def places(polyline: Svg) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in polyline.get("points", "").split())]


def test_a_higher_value_is_drawn_higher_and_steps_are_even() -> None:
    svg = charts.line_panel(curves(dpo=[0.1, 0.2, 0.3]), title="loss", x_label="step", styles=STYLES)
    (line,) = of_class(svg, "curve")
    (x1, y1), (x2, y2), (x3, y3) = places(line)
    assert y1 > y2 > y3  # the y axis of SVG points down
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)  # coordinates have one decimal
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)


def test_doubling_k_is_one_step_to_the_right() -> None:
    frame = pl.DataFrame({"series": ["dpo"] * 4, "x": [1.0, 2.0, 4.0, 8.0], "y": [0.1, 0.2, 0.3, 0.4]})
    svg = charts.line_panel(frame, title="best of k", x_label="k", styles=STYLES, doubling=True)
    xs = [x for x, _ in places(of_class(svg, "curve")[0])]
    steps = [b - a for a, b in pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)


def test_values_that_are_not_finite_are_not_drawn() -> None:
    frame = curves(dpo=[0.1, math.nan, 0.3], perpo=[math.inf, 0.2, 0.2])
    svg = charts.line_panel(frame, title="loss", x_label="step", styles=STYLES)
    lines = of_class(svg, "curve")
    assert sorted(len(places(line)) for line in lines) == [2, 2]
    assert "nan" not in charts.text(svg).lower()
    assert "inf" not in charts.text(svg).lower()


def test_a_long_curve_has_few_points_but_its_peaks_and_ends() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    values[7_000], values[13_000] = 40, -30
    svg = charts.line_panel(curves(dpo=values.tolist()), title="loss", x_label="step", styles=STYLES)
    found = places(of_class(svg, "curve")[0])
    assert len(found) <= 2 * charts.WIDTH
    assert found == sorted(found, key=lambda place: place[0])
    low, high = charts.HEIGHT - charts.BOTTOM, charts.TOP
    assert min(y for _, y in found) == high  # the axis goes from -40 to 40
    assert max(y for _, y in found) == pytest.approx(low + (high - low) * 10 / 80, abs=0.1)
    assert found[-1][0] - found[0][0] == pytest.approx(charts.WIDTH - charts.LEFT - charts.RIGHT, abs=2)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 0.5, 1.0], ["0", "0.5", "1"]),
        ([0.69310, 0.69315, 0.69320], ["0.6931", "0.69315", "0.6932"]),
        ([2.5e-6, 5e-6, -1e-5], ["2.5e\u22126", "5e\u22126", "\u22121e\u22125"]),
        ([0.000105, 0.00025], ["0.000105", "0.00025"]),
        ([999.0, 1000.0, 12000.0], ["999", "1,000", "12,000"]),
        ([1000.0, 1000.5], ["1,000.0", "1,000.5"]),
        ([0.5, 0.5], ["0.5", "0.5"]),
    ],
)
def test_ticks_can_be_told_apart(values: list[float], shown: list[str]) -> None:
    assert labels(values) == shown


@pytest.mark.parametrize(
    "values",
    [
        [2.5e-6, 7.5e-6],
        [2.5e-13],
        [0.00025, 0.00011],
        [0.693147, 0.693149],
        [0.69314718, 0.69314719],
        [-0.69314, -0.69318],
    ],
)
def test_tick_labels_fit_beside_the_axis(values: list[float]) -> None:
    svg = charts.line_panel(curves(dpo=values), title="learning rate", x_label="step", styles=STYLES)
    labels = [e for e in svg if e.tag == "text" and e.get("text-anchor") == "end"]
    assert len({label.text for label in labels}) == len(labels) > 1
    for label in labels:
        assert float(label.get("x", "0")) >= CHARACTER * len(label.text or "")


@pytest.mark.parametrize(
    ("axis", "percent"), [((0, 1), True), ((-0.4, 0.4), True), ((0, 0.00025), False), ((-0.0, 0.05), True)]
)
def test_labels_of_a_cells_axis_fit_into_it(axis: tuple[float, float], percent: bool) -> None:
    labels = [e for e in cells.axis_cell(axis, percent) if e.tag == "text"]
    assert labels
    for label in labels:
        half = CHARACTER * len(label.text or "") / 2
        assert half <= float(label.get("x", "0")) <= cells.CELL_WIDTH - half


def test_labels_below_the_axis_end_within_the_panel() -> None:
    frame = pl.DataFrame({"series": ["dpo"] * 2, "x": [0.0, 100_000.0], "y": [0.1, 0.2]})
    svg = charts.line_panel(frame, title="loss", x_label="step", styles=STYLES, whole=True)
    (label,) = [e for e in svg if e.text == "100,000"]
    assert float(label.get("x", "0")) + CHARACTER * len("100,000") / 2 <= charts.WIDTH


def test_a_long_title_is_shortened_but_not_in_the_description() -> None:
    title = "acc@8: accuracy (answers extracted by a judge, our prompt), mean of 8 answers"
    svg = charts.line_panel(curves(dpo=[0.5]), title=title, x_label="k", styles=STYLES, about="mathvista / reasoning")
    (shown,) = of_class(svg, "title")
    assert len(shown.text or "") == charts.LONGEST_TITLE
    assert svg.get("aria-label") == f"mathvista / reasoning, {title} by k: dpo 0.5"


def test_a_single_step_is_the_only_tick() -> None:
    svg = charts.line_panel(curves(dpo=[0.5], other=[0.7]), title="loss", x_label="step", styles=STYLES, whole=True)
    assert len(of_class(svg, "mark")) == 2  # a line of one point is not seen
    ticks = [e.text for e in svg if e.tag == "text" and e.get("text-anchor") == "middle"]
    assert ticks == ["1", "step"]


def test_a_chart_says_what_it_shows() -> None:
    frame = curves(dpo=[0.1, 0.3, 0.5], other=[1.0, 2.0, 3.0])
    svg = charts.line_panel(frame, title="accuracy", x_label="k", styles=STYLES, percent=True)
    assert svg.get("aria-label") == "accuracy by k: dpo 10 to 50 %"
    svg = charts.histogram_panel([0.0, 0.5, 1.0], [10, 30], title="rewards", x_label="reward")
    assert svg.get("aria-label") == "rewards: histogram of 40 values from 0 to 1"
    gains = pl.DataFrame({"policy": ["dpo"], "gain": [0.1], "low": [0.05], "high": [0.15]})
    svg = charts.forest_panel(gains, title="t", x_label="gain", styles=STYLES, percent=True)
    assert svg.get("aria-label") == "t, gain: dpo +10.0 [+5.0, +15.0]"
    assert 'aria-label="t, gain: dpo' in charts.figure([svg], {})
    for cell in (cells.interval_cell(0.1, 0, 0.2, (0, 1), "s1"), cells.axis_cell((0, 1), percent=True)):
        assert (cell.get("aria-hidden"), cell.get("role")) == ("true", None)  # the numbers are in the table


def _luminance(colour: str) -> float:
    """Relative luminance as in WCAG 2.2."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_series_has_a_contrast_of_three_to_one_and_text_more() -> None:
    """WCAG 2.2, criteria 1.4.3 and 1.4.11, on the page and on panels, in light and dark mode."""
    for palette in STYLE.split("@media")[:2]:
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})", palette))
        colours["paper"] = "#ffffff" if colours["paper"] == "#fff" else colours["paper"]
        series = dict.fromkeys(("base", "s1", "s2", "s3", "s4", "s5", "rest"), 3.0)
        for name, least in {**series, "truth": 4.5, "muted": 4.5, "ink": 4.5}.items():  # the last three colour text
            for behind in ("paper", "panel"):
                low, high = sorted(_luminance(colours[one]) for one in (name, behind))
                assert (high + 0.05) / (low + 0.05) >= least, (name, behind)


def test_empty_charts_show_a_message() -> None:
    svg = charts.line_panel(curves(dpo=[math.nan]), title="loss", x_label="step", styles=STYLES)
    assert "no values" in charts.text(svg)
    assert "no values" in charts.text(charts.histogram_panel([0.0, 1.0], [0], title="rewards", x_label="reward"))
    assert "nothing to show" in charts.figure([], {})


def test_bar_heights_are_proportional_to_counts() -> None:
    svg = charts.histogram_panel([0.0, 0.5, 1.0], [10, 30], title="rewards", x_label="reward")
    small, large = (float(bar.get("height", "0")) for bar in of_class(svg, "bar"))
    assert large == pytest.approx(3 * small, rel=1e-4)  # 30 / 10


def test_a_dot_is_filled_only_when_the_interval_excludes_zero() -> None:
    axis = (-0.1, 0.2)
    for low, high, filled in ((0.01, 0.1, True), (-0.1, -0.01, True), (-0.01, 0.1, False), (0.0, 0.1, False)):
        svg = cells.interval_cell(0.05, low, high, axis, "s1")
        assert bool(of_class(svg, "mark")) is filled
        assert bool(of_class(svg, "hollow")) is not filled
    without = cells.interval_cell(0.05, None, None, axis, "s1")
    assert [len(of_class(without, name)) for name in ("mark", "hollow", "s1", "rest")] == [0, 0, 0, 1]


def test_the_forest_plot_puts_gains_on_the_right_side_of_zero() -> None:
    frame = pl.DataFrame({"policy": ["dpo", "perpo"], "gain": [-0.05, 0.1], "low": [-0.1, 0.05], "high": [0.0, 0.15]})
    svg = charts.forest_panel(frame, title="t", x_label="gain", styles=STYLES, percent=True)
    (zero,) = of_class(svg, "zero")
    worse, better = [float(e.get("cx", "0")) for e in svg.iter("circle")]
    assert worse < float(zero.get("x1", "0")) < better
    assert "+10" in charts.text(svg)


def test_smoothing_is_the_mean_of_neighbours_within_a_series() -> None:
    frame = charts.smoothed(curves(dpo=[1.0, 2.0, 6.0], perpo=[10.0, 10.0, 10.0]), 3)
    assert frame.filter(series="dpo")["y"].to_list() == [1.5, 3.0, 4.0]  # (1+2)/2, (1+2+6)/3, (2+6)/2
    assert frame.filter(series="dpo")["raw"].to_list() == [1.0, 2.0, 6.0]
    assert frame.filter(series="perpo")["y"].to_list() == [10.0] * 3


def test_of_many_lines_only_coloured_ones_have_markers() -> None:
    frame = curves(**{f"p{i}": [0.1 * i, 0.2 * i] for i in range(30)})
    svg = charts.line_panel(frame, title="t", x_label="k", styles={"p3": "s1"})
    assert len(of_class(svg, "curve")) == 30
    assert len(of_class(svg, "rest")) == 29
    assert of_class(svg, "curve")[-1].get("class") == "curve s1"  # drawn last, on top


def test_a_figure_is_a_complete_svg_file() -> None:
    panels = [charts.histogram_panel([0, 1], [3], title="<a> & b", x_label="x") for _ in range(4)]
    text = charts.figure(panels, {"perpo": "s2"}, columns=3)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == f"0 0 {3 * charts.WIDTH} {2 * charts.HEIGHT + 28}"  # 2 rows under a legend of 28 px
    assert "prefers-color-scheme" in text
    assert "<a>" not in text


@pytest.mark.parametrize(
    ("value", "percent", "digits", "shown"),
    [(0.1, True, 1, "+10.0"), (-0.1, True, 1, "\u221210.0"), (0.0001, True, 1, "0.0"), (-0.25, False, 2, "\u22120.25")],
)
def test_signs(value: float, percent: bool, digits: int, shown: str) -> None:
    assert charts.signed(value, percent, digits) == shown


def test_a_long_name_keeps_both_ends() -> None:
    name = "perpo-list_size_10-min_margin_0.8-beta_0.05"
    short = charts.shortened(name, 20)
    assert len(short) == 20
    assert short.startswith("perpo")
    assert short.endswith("beta_0.05")
