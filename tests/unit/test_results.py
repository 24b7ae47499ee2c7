"""The result table and its sentences: numbers, verdicts and columns."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.tables.io import to_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.report.result_text import results_as_text
from perceptune.report.results import MOST_COLUMNS, leading, reliable, results, sampled, verdict

from tests.plugins import BENCHMARKS


def row(
    policy: str, value: float | None, gain: float | None = None, half: float = 0.03, **changes: Any
) -> dict[str, Any]:
    filled = dict.fromkeys(METRICS.schema.names)
    filled |= {"policy": policy, "benchmark": "shapes-test", "split": "test", "task": "grounding", "view": "original"}
    filled |= {"condition": "greedy", "k": 1, "metric": "accuracy_iou_0.5", "value": value, "n": 600, "n_failed": 3}
    if value is not None:
        filled |= {"ci_low": value - 0.04, "ci_high": value + 0.04}
    if gain is not None:
        filled |= {"base_value": 0.48, "gain": gain, "gain_ci_low": gain - half, "gain_ci_high": gain + half}
    return {**filled, **changes}


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    frame = pl.from_arrow(to_table(METRICS, list(rows)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def line_of(text: str, policy: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{policy} ")]
    return " ".join(line.split())


def test_the_table_has_value_interval_gain_and_failures() -> None:
    text = results_as_text(table(row("tiny", 0.48), row("dpo", 0.50, 0.02), row("perpo", 0.58, 0.10, n_failed=0)))
    assert "600 questions" in text
    assert line_of(text, "tiny") == "tiny 48.0 [44.0, 52.0] base 3"
    assert line_of(text, "dpo") == "dpo 50.0 [46.0, 54.0] +2.0 [-1.0, +5.0] 3"
    assert line_of(text, "perpo") == "perpo 58.0 [54.0, 62.0] +10.0 [+7.0, +13.0] * 0"
    words = " ".join(text.split())
    assert "Better than the base in accuracy at IoU 0.5, interval excludes 0: perpo (+10.0 points)." in words
    assert "Not distinguishable from the base, interval includes 0: dpo (+2.0 points)." in words


def test_a_falling_edit_distance_is_an_improvement() -> None:
    ned = {"metric": "ned", "task": "ocr"}
    frame = table(row("tiny", 0.4, **ned), row("perpo", 0.3, -0.1, **ned), row("sft", 0.5, 0.1, **ned))
    text = " ".join(results_as_text(frame).split())
    assert "Better than the base in edit distance (NED), interval excludes 0: perpo (-0.100)." in text
    assert "Worse than the base in edit distance (NED), interval excludes 0: sft (+0.100)." in text


@pytest.mark.parametrize(
    ("low", "high", "metric", "expected"),
    [
        (0.01, 0.2, "accuracy", "better"),
        (-0.2, -0.01, "accuracy", "worse"),
        (0.0, 0.2, "accuracy", "same"),
        (0.01, 0.2, "ned", "worse"),
        (-0.2, -0.01, "ned", "better"),
        (math.nan, 0.2, "accuracy", "unknown"),
        (None, None, "accuracy", "unknown"),
    ],
)
def test_verdicts(low: float | None, high: float | None, metric: str, expected: str) -> None:
    assert verdict({"gain_ci_low": low, "gain_ci_high": high, "n": 600}, metric) == expected


def test_a_handful_of_questions_has_no_intervals_and_no_verdict() -> None:
    """30 questions are enough. The 80 answers of 4 questions are not; neither is a metric of 29 units."""
    rows = [
        *(row(p, 0.4, gain, n=30, benchmark="enough") for p, gain in (("tiny", None), ("dpo", 0.2))),
        *(row(p, 0.4, gain, n=4, benchmark="few") for p, gain in (("tiny", None), ("dpo", 0.2))),
        row("dpo", 0.4, 0.2, n=80, benchmark="few", condition="mean_of_n", k=20),
        row("dpo", 0.4, 0.2, n=29, benchmark="enough", metric="mean_iou"),
    ]
    found = reliable(table(*rows))
    assert found.select("benchmark", "metric", "n", pl.col("ci_low").is_not_null()).rows() == [
        ("enough", "accuracy_iou_0.5", 30, True), ("enough", "accuracy_iou_0.5", 30, True),
        ("few", "accuracy_iou_0.5", 4, False), ("few", "accuracy_iou_0.5", 4, False),
        ("few", "accuracy_iou_0.5", 80, False), ("enough", "mean_iou", 29, False),
    ]  # fmt: skip
    for bound in ("ci_high", "gain_ci_low", "gain_ci_high"):
        assert found[bound].is_not_null().sum() == (2 if bound == "ci_high" else 1)
    assert found["value"].to_list() == [0.4] * 6
    text = results_as_text(table(*rows))
    assert "40.0 [36.0, 44.0] +20.0 [+17.0, +23.0] *" in " ".join(text.split())
    assert "Too few questions to tell: dpo (+20.0 points)." in text
    assert text.count("[") == 3
    assert "With fewer than 30 questions, no intervals are shown." in " ".join(text.split())
    assert "no intervals" not in results_as_text(table(*rows[:2]))


def test_only_a_base_model() -> None:
    text = results_as_text(table(row("tiny", 0.48)))
    assert "48.0 [44.0, 52.0]" in text
    assert "No trained policy to compare" in text


def test_no_rows_and_no_numbers() -> None:
    assert "no results" in results_as_text(table())
    text = results_as_text(table(row("tiny", math.nan), row("dpo", None, math.nan, half=math.nan)))
    assert line_of(text, "dpo").startswith("dpo n/a n/a")
    assert "nan" not in text.lower()


def test_thirty_long_names_fit_a_hundred_columns_and_none_is_cut() -> None:
    names = [f"perpo-diagnostics-list_size_{i}-min_margin_0.{i}-beta_0.05-gamma_{i / 10}" for i in range(30)]
    gains = [i / 100 for i in range(30)]
    named = zip(names, gains, strict=True)
    second = [row(n, 0.4, metric="mean_iou") for n in ["tiny", *names]]
    text = results_as_text(table(row("tiny", 0.48), *(row(n, 0.48 + g, g) for n, g in named), *second))
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"{name}\n" in text for name in names)
    assert "26 of 30" in text  # gains of 0.04 and more exclude 0 with a half width of 0.03
    assert "about 1 interval in 20 would still exclude 0 by chance" in " ".join(text.split())


def test_sampled_answers_and_the_blank_image_have_columns() -> None:
    drawn = {"condition": "mean_of_n", "k": 8}
    frame = table(
        row("tiny", 0.48), row("tiny", 0.05, view="blank"), row("tiny", 0.40, **drawn), row("tiny", 0.38, condition="mean_of_n", k=2),
        row("dpo", 0.5, 0.02), row("dpo", 0.45, 0.05, **drawn), row("dpo", 0.02, metric="accuracy_iou_0.5_run_std", **drawn),
        row("dpo", 0.3, metric="mean_iou", **drawn),
    )  # fmt: skip
    text = results_as_text(frame)
    header = text.splitlines()[1]
    assert " ".join(header.split()) == "policy accuracy at IoU 0.5, % gain, points acc@8, % no image, % unparsed"
    assert line_of(text, "tiny") == "tiny 48.0 [44.0, 52.0] base 40.0 [36.0, 44.0] 5.0 [1.0, 9.0] 3"
    assert line_of(text, "dpo") == "dpo 50.0 [46.0, 54.0] +2.0 [-1.0, +5.0] 45.0 [41.0, 49.0] n/a 3"
    words = " ".join(text.split())
    assert "acc@k, mean@k: mean over all k sampled answers" in words
    assert words.count("without the image") == 0
    assert words.count("No image: greedy answers to the same questions with a blank image.") == 1
    found = sampled(frame, results(frame)[0])
    assert found is not None
    assert (found.label, found.metric, found.n, found.spreads) == ("acc@8", "accuracy_iou_0.5", 8, {"dpo": 0.02})


@pytest.mark.parametrize(
    ("primary", "other", "label", "chosen"),
    [
        ("accuracy", "mean_iou", "acc@4", "accuracy"),
        ("f1", "accuracy", "acc@4", "accuracy"),  # F1 is not a mean over answers
        ("ned", "ned", "mean@4", "ned"),
        ("mean_iou", "mean_iou", "mean@4", "mean_iou"),
    ],
)
def test_the_label_of_the_mean_of_sampled_answers(primary: str, other: str, label: str, chosen: str) -> None:
    drawn = [row("tiny", 0.4, metric=m, condition="mean_of_n", k=4) for m in dict.fromkeys((other, chosen))]
    frame = table(row("tiny", 0.5, metric=primary), *drawn)
    found = sampled(frame, results(frame)[0])
    assert found is not None
    assert (found.label, found.metric) == (label, chosen)
    assert sampled(table(row("tiny", 0.5)), results(table(row("tiny", 0.5)))[0]) is None


@pytest.mark.parametrize(
    ("name", "intervals", "lines"),
    [("dpo", 4, 1), ("grpo@4", 4, 1), ("a-long-name", 3, 1), ("much-longer-name-22", 2, 1), ("x" * 60, 4, 2)],
)
def test_columns_and_intervals_are_dropped_for_long_names(name: str, intervals: int, lines: int) -> None:
    made = [
        row("tiny", 0.48),
        row(name, 0.58, 0.1),
        row("tiny", 0.4, metric="mean_iou"),
        row(name, 0.4, metric="mean_iou"),
    ]
    made += [row(p, 0.4, condition="mean_of_n", k=8) for p in ("tiny", name)]
    made += [row(p, 0.05, view="blank") for p in ("tiny", name)]
    text = results_as_text(table(*made))
    assert max(map(len, text.splitlines())) <= 100
    assert "mean IoU" not in text
    start = next(i for i, line in enumerate(text.splitlines()) if line.startswith(name))
    shown = text.splitlines()[start : start + lines]
    assert " ".join(shown).count("[") == intervals
    assert all(value in " ".join(shown) for value in (name, "58.0", "+10.0", "40.0", "5.0"))


def test_the_view_of_a_benchmark_can_be_chosen() -> None:
    frame = table(row("tiny", 0.05, view="blank"), row("tiny", 0.48))
    assert results(frame)[0].view == "original"
    assert results(frame, {"shapes-test": "blank"})[0].view == "blank"


def test_the_declared_coordinate_frame_is_shown_once() -> None:
    padded, original = "accuracy_iou_0.5_padded_frame", "accuracy_iou_0.5_original_frame"
    frame = table(row("tiny", 0.48), row("tiny", 0.48, metric=padded), row("tiny", 0.2, metric=original))
    assert results(frame)[0].metrics == ("accuracy_iou_0.5", original)


def test_the_overall_gives_every_benchmark_the_same_weight() -> None:
    drawn = {"condition": "mean_of_n", "k": 8, "metric": "accuracy"}
    made = []
    for name, value, count in (("a", 0.5, 300), ("b", 0.2, 100), ("c", 0.4, 200)):
        place = {"benchmark": name, "n": count}
        made += [row("tiny", value, **place | {"metric": "accuracy"}), row("tiny", value, **place | drawn)]
    assert "Overall acc@8, unweighted mean over 3 results: tiny 36.7 %." in results_as_text(table(*made))
    assert "Overall" not in results_as_text(table(*made[:2]))
    assert "Overall" not in results_as_text(table(*made[:3]))  # the second benchmark has no sampled answers
    assert "Overall" not in results_as_text(table(*made, row("tiny", 0.5, **drawn | {"benchmark": "c", "k": 16})))


def test_metrics_that_papers_quote_come_first() -> None:
    amber = [row("tiny", 0.5, metric=name) for name in BENCHMARKS["amber"].metrics]
    (result,) = results(table(*amber))
    assert result.leading == BENCHMARKS["amber"].quoted
    assert result.metrics[: len(result.leading)] == result.leading
    assert sorted(result.metrics) == sorted(BENCHMARKS["amber"].metrics)
    assert leading(["own", *(f"own_{i}" for i in range(MOST_COLUMNS))]) == (
        "own",
        "own_0",
        "own_1",
        "own_2",
        "own_3",
        "own_4",
    )
    assert leading(["f1", "accuracy", "yes_ratio"]) == ("f1", "accuracy", "yes_ratio")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_quoted_metrics_exist_and_the_primary_metric_is_first(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert set(benchmark.quoted) <= set(benchmark.metrics)
    assert len(leading(list(benchmark.metrics))) <= MOST_COLUMNS
    assert leading(list(benchmark.metrics))[0] == next(iter(benchmark.metrics))


def test_judged_results_name_the_judge() -> None:
    judged = {"benchmark": "mmhal", "task": "open", "metric": "mmhal_score"}
    frame = table(
        row("tiny", 2.1, judge="gpt: gpt-4-0613", **judged), row("dpo", 2.4, 0.3, judge="gpt: gpt-4-0613", **judged)
    )
    assert "original image, judged by gpt: gpt-4-0613)" in results_as_text(frame)
    both = table(
        row("tiny", 2.1, judge="gpt: gpt-4-0613", **judged), row("dpo", 2.4, 0.3, judge="gpt: gpt-4-1106", **judged)
    )
    assert "judged by gpt: gpt-4-0613 and gpt: gpt-4-1106)" in " ".join(results_as_text(both).split())
    assert max(map(len, results_as_text(both).splitlines())) <= 100
    assert "judged" not in results_as_text(table(row("tiny", 0.5)))
