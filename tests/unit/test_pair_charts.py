"""Charts and sentences of the report's sections on noise, attention and pairs."""

from __future__ import annotations

import polars as pl
import pytest
from perceptune.report import charts, results
from perceptune.report.result_text import TEXT_WIDTH
from perceptune.report.sections import attention, pairs
from perceptune.report.sections.results import selection_section

from tests.report_pages import metric_row
from tests.unit.test_charts import of_class

STYLES = {"tiny": "base", "p2dpo": "s1", "static": "s2"}


def sweep(levels: int, policies: tuple[str, ...] = ("tiny", "p2dpo")) -> tuple[pl.DataFrame, dict[str, float]]:
    """Metrics of a noise sweep with AFR, and view to sigma."""
    noise = {"original": 0.0, **{f"noise-0.{i:02}": i / 100 for i in range(1, levels)}}
    rows = []
    for policy in policies:
        gain = None if policy == "tiny" else 0.05
        for view, sigma in noise.items():
            rows.append(metric_row(policy, "accuracy_iou_0.5", 0.6 - sigma + (gain or 0), gain=gain, view=view))
        rows.append(metric_row(policy, "afr", 4.0, gain=gain, condition="attention", n=40))
    return pl.DataFrame(rows, infer_schema_length=None), noise


@pytest.mark.parametrize("levels", [2, 13, 40])
def test_a_long_sweep_continues_below_without_losing_numbers(levels: int) -> None:
    metrics, noise = sweep(levels, ("tiny", "p2dpo", "p2dpo-with-a-name-that-is-much-too-long-for-a-column"))
    lines = attention.sweep_lines(metrics, results.results(metrics), noise, TEXT_WIDTH)
    assert max(map(len, lines)) <= TEXT_WIDTH
    words = [word for line in lines if line.startswith("p2dpo ") for word in line.split()[1:]]
    expected = [f"{100 * (0.65 - sigma):.1f}*" for sigma in noise.values()]
    assert words[: len(expected)] == expected
    assert words[len(expected) :] == ["4.00", "+0.05", "*"]
    headers = [word for line in lines if line.startswith("policy") for word in line.split()[1:]]
    assert headers == [*(f"s={sigma:g}" for sigma in noise.values()), "AFR"]
    assert "p2dpo +0.05 [+0.02, +0.08] *" in "\n".join(lines)


def test_levels_that_were_not_evaluated_have_no_column() -> None:
    metrics, noise = sweep(3)
    (result,) = results.results(metrics)
    found = attention.noise_section(metrics, result, {**noise, "noise-of-another": 0.9}, STYLES)
    assert found is not None
    assert found["levels"] == ["0", "0.01", "0.02"]
    assert [len(row["cells"]) for row in found["rows"]] == [3, 3]
    assert found["n"] == "n = 600"
    assert "100 %" not in charts.text(found["panel"])


def test_gains_are_drawn_in_points_around_zero_and_the_base_is_not() -> None:
    metrics, noise = sweep(3)
    (result,) = results.results(metrics)
    found = attention.noise_section(metrics, result, noise, STYLES)
    assert found is not None
    (curve,) = of_class(found["gains"], "curve")
    assert curve.get("class") == "curve s1"
    (zero,) = of_class(found["gains"], "zero")
    heights = [float(point.split(",")[1]) for point in (curve.get("points") or "").split()]
    assert max(heights) < float(zero.get("y1", "0"))  # +5 points lie above 0
    assert "gain over the base, points" in charts.text(found["gains"])
    assert "8" in [text.text for text in found["gains"].iter("text")]  # its interval ends at 8 points, not at 0.08
    alone = metrics.filter(pl.col("policy") == "tiny")
    base_only = attention.noise_section(alone, results.results(alone)[0], noise, STYLES)
    assert base_only is not None
    assert base_only["gains"] is None


def test_intervals_of_series_are_side_by_side() -> None:
    frame = pl.DataFrame(
        [(name, x, 0.5, 0.4, 0.7) for name in STYLES for x in (0.0, 0.2)],
        schema=["series", "x", "y", "low", "high"],
        orient="row",
    )
    svg = charts.line_panel(frame, title="t", x_label="sigma", styles=STYLES, whiskers=True)
    drawn = of_class(svg, "spread")
    assert len(drawn) == 6
    assert not of_class(svg, "band")
    places = [float(line.get("x1", "0")) for line in drawn]
    assert len(set(places)) == 6
    assert all(line.get("x1") == line.get("x2") for line in drawn)
    marks = of_class(svg, "mark")
    assert len(marks) == 6
    assert (float(drawn[0].get("y1", "0")) - float(drawn[0].get("y2", "0"))) > 0  # low lies below high


def test_ticks_of_layers_are_integers() -> None:
    frame = pl.DataFrame({"series": ["tiny"] * 2, "x": [0.0, 1.0], "y": [1.0, 2.0]})
    svg = charts.line_panel(frame, title="t", x_label="layer", styles=STYLES, whole=True)
    bottom = [t.text for t in svg.iter("text") if t.get("y") == f"{charts.HEIGHT - charts.BOTTOM + 15:g}"]
    assert bottom == ["0", "1"]


@pytest.mark.parametrize(("layers", "bands"), [(4, False), (32, True)])
def test_many_layers_share_a_band(layers: int, bands: bool) -> None:
    rows = [metric_row("tiny", "accuracy_iou_0.5", 0.5)]
    rows += [metric_row("tiny", f"afr_layer_{i:02}", 2.0 + i, condition="attention") for i in range(layers)]
    rows += [metric_row("tiny", "afr", 2.0, condition="attention")]
    metrics = pl.DataFrame(rows, infer_schema_length=None)
    found = attention.attention_section(metrics, results.results(metrics)[0], STYLES)
    assert found is not None
    ((panel, gains),) = found["panels"]
    assert gains is None
    assert bool(of_class(panel, "band")) is bands
    assert len(of_class(panel, "spread")) == (0 if bands else layers)


def test_the_sentence_on_crops() -> None:
    clip = {"crop": {"above_image": 0.25, "without_ratio": 3}, "inverse": {"above_image": None, "without_ratio": 3}}
    assert pairs._above_image(clip) == (
        "the attention crop scores higher than the image for 25.0 % of the examples; "
        "examples omitted because the image scores 0 or less: 3"
    )
    assert pairs._above_image(None) == ""


def test_rare_reasons_share_a_column() -> None:
    often = {"identical answers": 9, "margin": 8, "perplexity": 7}
    rare = {f"\x1b[2J engine said {i}": 1 for i in range(9)}
    titles, rows = pairs.reason_columns([{**often, **rare}, often])
    assert {"identical answers", "margin", "perplexity"} < set(titles)
    assert len(titles) == 6
    assert [row[-1] for row in rows] == [7, 0]
    assert [sum(row) for row in rows] == [24 + 9, 24]
    lists = selection_section({"a": {"kept": 1, "dropped": {**often, **rare}}})
    assert (lists["reasons"], lists["rows"][0]["dropped"], lists["rows"][0]["total"]) == (titles, rows[0], 1 + 24 + 9)
    kind = {"pairs": 40, "kept": 7, "dropped": {**often, **rare}, "negative_ips": {"before": None, "after": None}}
    kind |= {when: dict.fromkeys(("ppl_chosen", "ppl_rejected", "margin", "ips")) for when in ("before", "after")}
    statistics = {"groups": 40, "kept": 7, "context": "own", "strength": {}, "kinds": {"focus": kind}}
    statistics |= {"limits": {"max_ppl": None, "margin": {"focus": None}}}
    (part,) = pairs.pairs_section({"a": statistics})
    assert part["reasons"][-1] == "other reasons"
    assert not [reason for reason in part["reasons"] if "\x1b" in reason]
    assert part["kinds"][0]["dropped"][-1] == 7
    assert sum(part["kinds"][0]["dropped"]) + part["kinds"][0]["kept"] == 40
    assert part["above"] == ""
