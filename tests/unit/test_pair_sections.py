"""The report's sections on noise, attention and pairs: numbers and plain text."""

from typing import Any

import polars as pl
import pytest
from perceptune.report import charts, results
from perceptune.report.result_text import results_as_text
from perceptune.report.sections import attention, pairs

from tests.report_pages import metric_row

NOISE = {"original": 0.0, "noise-0.1": 0.1, "noise-0.4": 0.4}
STYLES = {"tiny": "base", "p2dpo": "s1"}


def rows() -> list[dict[str, Any]]:
    made = []
    for policy, gain in (("tiny", None), ("p2dpo", 0.05)):
        for view, drop in (("original", 0.0), ("noise-0.1", 0.1), ("noise-0.4", 0.2)):
            made.append(metric_row(policy, "accuracy_iou_0.5", 0.6 - drop + (gain or 0), gain=gain, view=view))
        for metric, value in (
            ("afr", 4.0),
            ("image_share", 0.5),
            ("p_accuracy", 0.7),
            ("p_accuracy_afr_14", 0.8),
            ("afr_all_layers", 3.5),
            ("afr_layer_00", 2.0),
            ("afr_layer_01", 6.0),
        ):
            made.append(metric_row(policy, metric, value + (gain or 0), gain=gain, condition="attention", n=40))
    return made


@pytest.fixture
def metrics() -> pl.DataFrame:
    return pl.DataFrame(rows(), infer_schema_length=None)


def test_the_sweep_has_a_column_per_level_and_a_row_per_policy(metrics: pl.DataFrame) -> None:
    (result,) = results.results(metrics)
    found = attention.noise_section(metrics, result, NOISE, STYLES)
    assert found is not None
    assert found["levels"] == ["0", "0.1", "0.4"]
    cells = {row["policy"]: [(c["value"], c["gain"]) for c in row["cells"]] for row in found["rows"]}
    assert cells == {
        "tiny": [("60.0", ""), ("50.0", ""), ("40.0", "")],
        "p2dpo": [("65.0", "+5.0 *"), ("55.0", "+5.0 *"), ("45.0", "+5.0 *")],
    }
    assert charts.text(found["panel"]).count("<polyline") == 2


def test_without_a_sweep_there_is_no_section(metrics: pl.DataFrame) -> None:
    (result,) = results.results(metrics)
    assert attention.noise_section(metrics, result, {}, STYLES) is None
    clean = metrics.filter(pl.col("view") == "original", pl.col("condition") == "greedy")
    assert attention.noise_section(clean, result, NOISE, STYLES) is None
    assert attention.attention_section(clean, result, STYLES) is None
    assert attention.sweep_lines(clean, [result], {}, 100) == []


def test_attention_metrics(metrics: pl.DataFrame) -> None:
    (result,) = results.results(metrics)
    found = attention.attention_section(metrics, result, STYLES)
    assert found is not None
    assert found["measures"] == [
        "attention focus ratio",
        "AFR of all layers together",
        "attention on the image",
        "accuracy where the base AFR is high (P-Acc)",
        "accuracy where the base AFR exceeds 14 (the paper's P-Acc)",
    ]
    values = {row["policy"]: [(c["value"], c["gain"]) for c in row["cells"]] for row in found["rows"]}
    assert values["p2dpo"] == [
        ("4.05", "+0.05"), ("3.55", "+0.05"), ("55.0 %", "+5.0"), ("75.0 %", "+5.0"), ("85.0 %", "+5.0")
    ]  # fmt: skip
    assert values["tiny"] == [("4.00", ""), ("3.50", ""), ("50.0 %", ""), ("70.0 %", ""), ("80.0 %", "")]
    assert len(found["panels"]) == 1  # image shares have a single layer, which gets no chart
    assert found["n"] == 40


def test_the_plain_text_fits_and_marks_gains_that_exclude_zero(metrics: pl.DataFrame) -> None:
    lines = attention.sweep_lines(metrics, results.results(metrics), NOISE, 100)
    assert lines[1] == "shapes-test / grounding: accuracy at IoU 0.5, % under noise of sigma s"
    assert lines[2].split() == ["policy", "s=0", "s=0.1", "s=0.4", "AFR"]
    assert lines[4].split() == ["p2dpo", "65.0*", "55.0*", "45.0*", "4.05", "+0.05", "*"]
    assert max(map(len, lines)) <= 100
    text = results_as_text(metrics, lines)
    assert "\n".join(lines).strip() in text


def test_the_numbers_of_pairs() -> None:
    table = {"n": 3.0, "mean": 1.5, "sd": 0.1, "min": -1.0, "q1": 1.0, "median": 1.5, "q3": 2.0, "max": 2.5}
    kind = {
        "pairs": 10, "kept": 3, "dropped": {"margin": 4, "identical answers": 3}, "negative_ips": {"before": 0.25, "after": None},
        "before": dict.fromkeys(("ppl_chosen", "ppl_rejected", "margin", "ips"), table),
        "after": dict.fromkeys(("ppl_chosen", "ppl_rejected", "margin", "ips"), None),
    }  # fmt: skip
    statistics = {
        "groups": 10, "kept": 3, "dropped": {}, "limits": {"max_ppl": 2.5, "margin": {"focus": [-0.174, 0.208], "robust": None}},
        "context": "own", "kinds": {"focus": kind, "robust": {**kind, "dropped": {}}}, "strength": {"noise": table, "enhanced": None},
        "clip": {"crop": {"ratio": table, "difference": None}, "inverse": {"ratio": None, "difference": table}},
    }  # fmt: skip
    (found,) = pairs.pairs_section({"a/b": statistics})
    assert found["reasons"] == ["identical answers", "margin"]
    assert [(k["kept"], k["dropped"], k["limits"], k["negative"]) for k in found["kinds"]] == [
        (3, [3, 4], "-0.174 to 0.208", ["25.0 %", "n/a"]),
        (3, [0, 0], "none", ["25.0 %", "n/a"]),
    ]
    assert len(found["tables"]) == 8  # both kinds, four columns, before the filter only
    assert found["tables"][0] == (
        "focus, perplexity, chosen",
        "before",
        ["3", "1.500", "0.100", "\u22121.000", "1.000", "1.500", "2.000", "2.500"],
    )
    assert [title for title, _ in found["strength"]] == ["noise, r.m.s. per pixel"]
    assert [title for title, _ in found["clip"]] == [
        "attention crop, crop / image",
        "inverse crop (control), 100 × (crop − image)",
    ]
