"""Results per benchmark and task from the metrics table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import polars as pl

from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, names
from perceptune.core.benchmarks.benchmark import Benchmark
from perceptune.core.benchmarks.bootstrap import macro_mean
from perceptune.report.charts import signed
from perceptune.report.svg import finite

Row = Mapping[str, Any]
FIXED = "\u00a0"
"""A non-breaking space."""
SPREAD = "_run_std"
"""Suffix of the metric that holds the standard deviation over runs."""
MOST_COLUMNS = 6
"""Maximum number of metric columns. With more metrics, a table shows those that papers quote, or
the first ones."""
FEW_QUESTIONS = 30
"""With fewer questions than this, no intervals are shown: the bootstrap resamples the questions at
hand, and a handful does not represent the others. Intervals of all-right or all-wrong answers would
even have no width."""
MANY = 8
"""With more trained policies than this, sentences count policies instead of naming them."""
MANY_COMPARISONS = 10
"""With this number of comparisons or more, a sentence says what chance does."""


@dataclass(frozen=True)
class Measure:
    """Label and number format of a metric."""

    label: str
    percent: bool = True
    lower_is_better: bool = False

    @property
    def unit(self) -> str:
        """Suffix of the numbers."""
        return " %" if self.percent else ""

    @property
    def heading(self) -> str:
        """Label and unit."""
        return self.headed(self.label)

    def headed(self, label: str) -> str:
        """Another label with the unit. The comma keeps a number in the label apart: `IoU 0.5, %`."""
        return f"{label},{self.unit}" if self.unit else label

    def number(self, value: float | None) -> str:
        """A value as text: shares as percentages with one decimal, anything else with three."""
        if not finite(value):
            return "n/a"
        return f"{value * 100:.1f}" if self.percent else f"{value:.3f}"

    def interval(self, low: float | None, high: float | None) -> str:
        """`[low, high]`, or an empty string without an interval."""
        return f"[{self.number(low)}, {self.number(high)}]" if finite(low) and finite(high) else ""

    def difference(self, value: float | None) -> str:
        """A gain with its sign."""
        return signed(value, self.percent, 1 if self.percent else 3) if finite(value) else "n/a"

    def difference_interval(self, low: float | None, high: float | None) -> str:
        """`[low, high]` with signs, or an empty string without an interval."""
        return f"[{self.difference(low)}, {self.difference(high)}]" if finite(low) and finite(high) else ""


@dataclass(frozen=True)
class Result:
    """Greedy results on one benchmark, split and task: one row per policy and metric."""

    benchmark: str
    split: str
    task: str
    view: str
    metrics: tuple[str, ...]
    """The primary metric, then the other leading ones, then the rest."""
    rows: dict[str, dict[str, Row]]
    """Policy to metric to row of the metrics table."""

    @property
    def name(self) -> str:
        """Benchmark and task, as in sentences."""
        return f"{self.benchmark} / {self.task}"

    @property
    def primary(self) -> str:
        """The metric that policies are compared by."""
        return self.metrics[0]

    @property
    def leading(self) -> tuple[str, ...]:
        """The metrics shown first, starting with the primary one; all metrics if there are few."""
        return leading(self.metrics)

    @property
    def questions(self) -> int:
        """Number of answers, the maximum over policies and metrics."""
        return max(int(row["n"]) for cells in self.rows.values() for row in cells.values())

    @property
    def judge(self) -> str:
        """`, judged by gpt-4: gpt-4-0613` (all judges, if they differ), or an empty string."""
        judges = (row.get("judge") for cells in self.rows.values() for row in cells.values())
        names = list(dict.fromkeys(name for name in judges if name))
        return f", judged by {' and '.join(names)}" if names else ""

    def failed(self, policy: str) -> int:
        """Number of unparsable answers of a policy, the maximum over metrics."""
        return max(int(row["n_failed"]) for row in self.rows[policy].values())

    def trained(self, policy: str) -> bool:
        """Whether the policy is compared with a base model."""
        return any(row["base_value"] is not None or row["gain"] is not None for row in self.rows[policy].values())


def leading(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics of a benchmark to show first, starting with the primary one.

    Up to `MOST_COLUMNS` metrics are all shown; of more, those that papers quote.
    """
    if len(metrics) <= MOST_COLUMNS:
        return tuple(metrics)
    quoted = next(
        (b.quoted for b in _benchmarks() if metrics[0] in b.quoted[:1] and set(metrics) <= set(b.metrics)), ()
    )
    return tuple(m for m in quoted if m in metrics) or tuple(metrics[:MOST_COLUMNS])


def measure(metric: str) -> Measure:
    """Label and format of a metric; undeclared metrics are shown under their own name."""
    return _declared().get(metric) or Measure(metric.replace("_", " "), percent=False)


@cache
def _declared() -> dict[str, Measure]:
    """Metrics declared by rewards and benchmarks; benchmarks override rewards."""
    return {
        name: Measure(one.label, one.percent, one.lower_is_better)
        for plugin in (*_loaded("reward"), *_benchmarks())
        for name, one in plugin.metrics.items()
    }


def _benchmarks() -> list[Benchmark]:
    return [variant for benchmark in _loaded("benchmark") for variant in benchmark.every_variant()]


@cache
def _loaded(kind: str) -> tuple[Any, ...]:
    """All plug-ins of a kind that can be loaded.

    Broken ones are skipped: the plug-ins that the config uses have been validated before.
    """
    found = []
    for name in names(kind):
        with suppress(UserError):
            found.append(load(kind, name))
    return tuple(found)


def reliable(metrics: pl.DataFrame) -> pl.DataFrame:
    """The metrics table without intervals of fewer than `FEW_QUESTIONS` questions.

    `n` of sampled answers counts answers, so that the questions of their benchmark, split and task
    are those of the greedy answers.
    """
    place, bounds = ["benchmark", "split", "task"], ["ci_low", "ci_high", "gain_ci_low", "gain_ci_high"]
    asked = metrics.filter(pl.col("condition") == "greedy").group_by(place).agg(asked=pl.col("n").max())
    enough = pl.min_horizontal("n", "asked") >= FEW_QUESTIONS
    found = metrics.join(asked, on=place, how="left", maintain_order="left")
    return found.with_columns(pl.when(enough).then(bound).alias(bound) for bound in bounds).drop("asked")


def results(metrics: pl.DataFrame, views: Mapping[str, str] | None = None) -> list[Result]:
    """The greedy results per benchmark, split and task, in the order of the table.

    `views` maps benchmarks to the view that counts. The default is `original`, or the first view in
    the table if there is no `original`.
    """
    greedy = metrics.filter(pl.col("condition") == "greedy")
    found = []
    for (benchmark, split, task), rows in greedy.group_by("benchmark", "split", "task", maintain_order=True):
        available = rows["view"].unique(maintain_order=True).to_list()
        view = (views or {}).get(benchmark, "original")
        view = view if view in available else available[0]
        of_view = rows.filter(pl.col("view") == view)
        names = of_view["metric"].unique(maintain_order=True).to_list()
        cells: dict[str, dict[str, Row]] = {}
        for row in of_view.iter_rows(named=True):
            cells.setdefault(row["policy"], {})[row["metric"]] = row
        distinct = [m for m in names if not _repeats(m, names[0], cells)]
        ordered = tuple(dict.fromkeys([*leading(distinct), *distinct]))
        found.append(Result(str(benchmark), str(split), str(task), view, ordered, cells))
    return found


def _repeats(metric: str, primary: str, cells: Mapping[str, Mapping[str, Row]]) -> bool:
    """Whether `metric` repeats the primary metric.

    The metric of the declared coordinate frame (`..._frame`) has the primary value for every policy.
    """
    return metric.endswith("_frame") and all(
        metric in c and primary in c and c[metric]["value"] == c[primary]["value"] for c in cells.values()
    )


def verdict(row: Row | None, metric: str) -> str:
    """`better`, `worse`, `same` (the gain's interval includes 0), `few` (no interval, because there are
    fewer than `FEW_QUESTIONS` questions) or `unknown` (no interval)."""
    if row is None or not (finite(row["gain_ci_low"]) and finite(row["gain_ci_high"])):
        return "few" if row is not None and row["n"] < FEW_QUESTIONS else "unknown"
    if row["gain_ci_low"] <= 0 <= row["gain_ci_high"]:
        return "same"
    return "better" if (row["gain_ci_low"] > 0) != measure(metric).lower_is_better else "worse"


def verdict_sentences(result: Result) -> list[str]:
    """Sentences on which gains in the primary metric have an interval that excludes 0."""
    how = measure(result.primary)
    by_verdict: dict[str, list[tuple[float, str]]] = {}
    for policy, cells in result.rows.items():
        row = cells.get(result.primary)
        if row is not None and result.trained(policy):
            points = " points" if how.percent and finite(row["gain"]) else ""
            size = abs(row["gain"]) if finite(row["gain"]) else 0.0
            named = (size, f"{policy} ({how.difference(row['gain'])}{points})")
            by_verdict.setdefault(verdict(row, result.primary), []).append(named)
    opening = {
        "better": f"better than the base in {how.label}, interval excludes 0:",
        "worse": f"worse than the base in {how.label}, interval excludes 0:",
        "same": "not distinguishable from the base, interval includes 0:",
        "few": "too few questions to tell:",
        "unknown": "no interval:",
    }
    compared = sum(map(len, by_verdict.values()))
    sentences = [f"{opening[v]} {_listed(by_verdict[v], compared)}" for v in opening if v in by_verdict]
    if "few" not in by_verdict:
        sentences += chance(compared)
    return sentences or ["no trained policy to compare"]


def chance(compared: int) -> list[str]:
    """A sentence on what chance does to many comparisons; none for few."""
    if compared < MANY_COMPARISONS:
        return []
    return [
        f"{compared} comparisons: for policies equal to their base, about 1 interval in 20 would still exclude 0 "
        "by chance, and the largest of many gains is likely an overestimate"
    ]


def _listed(names: list[tuple[float, str]], compared: int) -> str:
    """All names, or only the count and the largest change if more than `MANY` are compared."""
    if compared <= MANY:
        return ", ".join(name for _, name in names)
    return f"{len(names)} of {compared}, the largest change {max(names)[1]}"


def without_image(metrics: pl.DataFrame, result: Result) -> dict[str, tuple[Row, Row]]:
    """Policy to its rows of the primary metric, with the image and with a blank image.

    Empty if the blank view was not evaluated.
    """
    if result.view == "blank":
        return {}
    blank = metrics.filter(
        pl.col("condition") == "greedy",
        pl.col("view") == "blank",
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
        pl.col("metric") == result.primary,
    )
    rows = {row["policy"]: row for row in blank.iter_rows(named=True)}
    return {p: (c[result.primary], rows[p]) for p, c in result.rows.items() if p in rows and result.primary in c}


@dataclass(frozen=True)
class Sampled:
    """Scores of the n sampled answers per question: the mean over answers and questions."""

    metric: str
    """The primary metric, or another one if that has no value per answer (F1)."""
    n: int
    rows: dict[str, Row]
    spreads: dict[str, float]
    """Policy to the standard deviation of the n runs' means."""

    @property
    def label(self) -> str:
        """`acc@8` as in papers; `mean@8` for a metric that is not a share of correct answers."""
        return f"{'acc' if self.metric.startswith('accuracy') or self.metric == 'exact' else 'mean'}@{self.n}"


def sampled(metrics: pl.DataFrame, result: Result) -> Sampled | None:
    """Mean scores of the sampled answers of `result`; None without sampled answers."""
    rows = metrics.filter(
        pl.col("condition") == "mean_of_n",
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
        pl.col("policy").is_in(list(result.rows)),
    )
    names = [m for m in rows["metric"].unique(maintain_order=True) if not m.endswith(SPREAD)]
    if not names:
        return None
    metric = result.primary if result.primary in names else names[0]
    own = rows.filter(pl.col("metric") == metric)
    n = max(own["k"].drop_nulls().to_list())
    spreads = rows.filter(pl.col("metric") == metric + SPREAD, pl.col("k") == n, pl.col("value").is_finite())
    found: dict[str, Mapping[str, Any]] = {
        row["policy"]: row for row in own.filter(pl.col("k") == n).iter_rows(named=True)
    }
    return Sampled(metric, n, found, dict(spreads.select("policy", "value").iter_rows()))


def overall_sentence(metrics: pl.DataFrame, found: Sequence[Result]) -> str:
    """The overall `acc@k` of each policy, the unweighted mean over benchmarks and tasks.

    Empty unless at least two benchmarks or tasks have an `acc@k` with the same k.
    """
    parts = [drawn for result in found if (drawn := sampled(metrics, result)) and drawn.label.startswith("acc")]
    policies = [p for p in dict.fromkeys(p for drawn in parts for p in drawn.rows) if all(p in d.rows for d in parts)]
    if len(parts) < 2 or len({drawn.n for drawn in parts}) > 1 or not policies:
        return ""
    values = {p: [drawn.rows[p]["value"] for drawn in parts] for p in policies}
    means = [f"{p} {100 * macro_mean(v):.1f} %".replace(" ", FIXED) for p, v in values.items() if all(map(finite, v))]
    return f"overall {parts[0].label}, unweighted mean over {len(parts)} results: {', '.join(means)}" if means else ""
