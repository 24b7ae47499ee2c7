"""From the long metrics table to what a person reads: the result per benchmark and task, and the plain-text table."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import polars as pl

from perceptune.core.charts import signed

Row = Mapping[str, Any]
TEXT_WIDTH = 100
MANY = 8
"""Trained policies above which a sentence counts them instead of naming all."""


@dataclass(frozen=True)
class Measure:
    """How a metric is named and shown."""

    label: str
    percent: bool = True
    lower_is_better: bool = False

    @property
    def unit(self) -> str:
        """What follows the numbers."""
        return " %" if self.percent else ""

    def number(self, value: float | None) -> str:
        """A value: a share as percentage with one decimal, anything else with three."""
        if not finite(value):
            return "n/a"
        return f"{value * 100:.1f}" if self.percent else f"{value:.3f}"

    def interval(self, low: float | None, high: float | None) -> str:
        """`[low, high]`, or nothing where there is no interval."""
        return f"[{self.number(low)}, {self.number(high)}]" if finite(low) and finite(high) else ""

    def difference(self, value: float | None) -> str:
        """A gain with its sign."""
        return signed(value, self.percent, 1 if self.percent else 3) if finite(value) else "n/a"

    def difference_interval(self, low: float | None, high: float | None) -> str:
        """`[low, high]` with signs, or nothing."""
        return f"[{self.difference(low)}, {self.difference(high)}]" if finite(low) and finite(high) else ""


MEASURES = {
    "accuracy_iou_0.5": Measure("accuracy at IoU 0.5"),
    "mean_iou": Measure("mean IoU", percent=False),
    "accuracy_iou_0.5_padded_frame": Measure("accuracy, read in the padded frame"),
    "accuracy_iou_0.5_original_frame": Measure("accuracy, read in the original frame"),
    "ned": Measure("edit distance (NED)", percent=False, lower_is_better=True),
    "token_f1": Measure("token F1"),
    "token_precision": Measure("token precision"),
    "token_recall": Measure("token recall"),
    "exact": Measure("exact"),
    "f1": Measure("F1 of yes"),
    "accuracy": Measure("accuracy"),
    "precision": Measure("precision of yes"),
    "recall": Measure("recall of yes"),
    "yes_ratio": Measure("answers yes"),
}
"""Metrics with a name of their own, the most important first; others are shown under their column name."""


@dataclass(frozen=True)
class Result:
    """One benchmark and task: greedy answers, one row per policy and metric."""

    benchmark: str
    split: str
    task: str
    view: str
    metrics: tuple[str, ...]
    """The primary metric first."""
    rows: dict[str, dict[str, Row]]
    """Policy to metric to its row of the metrics table."""

    @property
    def primary(self) -> str:
        """The metric that the result is judged by."""
        return self.metrics[0]

    @property
    def questions(self) -> int:
        """Answers behind the numbers, the largest count of any policy."""
        return max(int(row["n"]) for cells in self.rows.values() for row in cells.values())

    def failed(self, policy: str) -> int:
        """Answers of a policy that could not be parsed."""
        return max(int(row["n_failed"]) for row in self.rows[policy].values())

    def trained(self, policy: str) -> bool:
        """Whether the policy is compared with a base."""
        return any(row["base_value"] is not None or row["gain"] is not None for row in self.rows[policy].values())


def finite(value: Any) -> TypeGuard[float]:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def measure(metric: str) -> Measure:
    """How a metric is shown; an unknown one as it is."""
    return MEASURES.get(metric) or Measure(metric.replace("_", " "), percent=False)


def results(metrics: pl.DataFrame, views: Mapping[str, str] | None = None) -> list[Result]:
    """The greedy results per benchmark, split and task, in the order of the table.

    `views` gives the view that a benchmark is judged by; without it `original`, else the first in the table.
    """
    greedy = metrics.filter(pl.col("condition") == "greedy")
    found = []
    for (benchmark, split, task), rows in greedy.group_by("benchmark", "split", "task", maintain_order=True):
        shown = rows["view"].unique(maintain_order=True).to_list()
        view = (views or {}).get(benchmark, "original")
        view = view if view in shown else shown[0]
        judged = rows.filter(pl.col("view") == view)
        names = judged["metric"].unique(maintain_order=True).to_list()
        ranked = sorted(names, key=lambda m: list(MEASURES).index(m) if m in MEASURES else len(MEASURES))
        cells: dict[str, dict[str, Row]] = {}
        for row in judged.iter_rows(named=True):
            cells.setdefault(row["policy"], {})[row["metric"]] = row
        told = tuple(m for m in ranked if not _repeats(m, ranked[0], cells))
        found.append(Result(str(benchmark), str(split), str(task), view, told, cells))
    return found


def _repeats(metric: str, primary: str, cells: Mapping[str, Mapping[str, Row]]) -> bool:
    """Whether it reads boxes in another frame and gives every policy the primary value: the declared frame."""
    return metric.endswith("_frame") and all(
        metric in c and primary in c and c[metric]["value"] == c[primary]["value"] for c in cells.values()
    )


def verdict(row: Row | None, metric: str) -> str:
    """`better`, `worse`, `same` (the gain's interval holds 0) or `unknown`."""
    if row is None or not (finite(row["gain_ci_low"]) and finite(row["gain_ci_high"])):
        return "unknown"
    if row["gain_ci_low"] <= 0 <= row["gain_ci_high"]:
        return "same"
    return "better" if (row["gain_ci_low"] > 0) != measure(metric).lower_is_better else "worse"


def verdict_sentences(result: Result) -> list[str]:
    """In words, which gains in the primary metric exclude 0 and which do not."""
    how = measure(result.primary)
    said: dict[str, list[tuple[float, str]]] = {}
    for policy, cells in result.rows.items():
        row = cells.get(result.primary)
        if row is not None and result.trained(policy):
            points = " points" if how.percent and finite(row["gain"]) else ""
            size = abs(row["gain"]) if finite(row["gain"]) else 0.0
            named = (size, f"{policy} ({how.difference(row['gain'])}{points})")
            said.setdefault(verdict(row, result.primary), []).append(named)
    opening = {
        "better": f"better than the base in {how.label}, interval excludes 0:",
        "worse": f"worse than the base in {how.label}, interval excludes 0:",
        "same": "not distinguishable from the base, interval includes 0:",
        "unknown": "without an interval:",
    }
    compared = sum(map(len, said.values()))
    sentences = [f"{opening[v]} {_listed(said[v], compared)}" for v in opening if v in said]
    if compared >= 10:
        sentences.append(
            f"{compared} comparisons: of policies equal to their base about 1 in 20 would still exclude 0, by chance, "
            "and the largest of many gains overstates itself"
        )
    return sentences or ["no trained policy to compare"]


def _listed(names: list[tuple[float, str]], compared: int) -> str:
    """All names; of many only the count and the largest change."""
    if compared <= MANY:
        return ", ".join(name for _, name in names)
    return f"{len(names)} of {compared}, the largest change {max(names)[1]}"


def without_image(metrics: pl.DataFrame, result: Result) -> dict[str, tuple[Row, Row]]:
    """Policy to its rows of the primary metric with the image and with a blank one; empty if blank was not asked."""
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


def without_image_sentence(pairs: Mapping[str, tuple[Row, Row]], metric: str) -> str:
    """The no-image test in words: of each policy, or from the lowest to the highest where there are many."""
    how = measure(metric)

    def value(row: Row) -> str:
        return how.number(row["value"]) + how.unit

    if len(pairs) <= 4:
        said = [f"{policy} {value(blank)} (with it {value(seen)})" for policy, (seen, blank) in pairs.items()]
        return f"{how.label} without the image: " + ", ".join(said)
    blanks = sorted((b for _, b in pairs.values() if finite(b["value"])), key=lambda r: r["value"])
    seens = sorted((s for s, _ in pairs.values() if finite(s["value"])), key=lambda r: r["value"])
    if not blanks or not seens:
        return f"{how.label} without the image: n/a"
    return (
        f"{how.label} without the image: {value(blanks[0])} to {value(blanks[-1])} over {len(pairs)} policies "
        f"(with it {value(seens[0])} to {value(seens[-1])})"
    )


def result_text(metrics: pl.DataFrame, more: Sequence[str] = ()) -> str:
    """The result as plain text, at most 100 columns wide: one line per policy, and a verdict in words; then `more` lines."""
    parts = ["\n".join(_text_of(metrics, result)) for result in results(metrics)]
    if not parts:
        return "no results: the metrics table has no greedy rows\n"
    note = (
        "Brackets: 95 % bootstrap intervals. Gain: paired difference to the base model on the same questions; "
        "`*` marks an interval that excludes 0. Unparsed: answers that could not be read, scored 0."
    )
    told = ["\n".join(more).strip("\n")] if more else []
    return "\n\n".join([*parts, *told, "\n".join(textwrap.wrap(note, TEXT_WIDTH))]) + "\n"


def _text_of(metrics: pl.DataFrame, result: Result) -> Iterator[str]:
    how = measure(result.primary)
    counts = {int(c[result.primary]["n"]) for c in result.rows.values() if result.primary in c}
    n = f"n = {result.questions}" if len(counts) <= 1 else f"n = {min(counts)} to {max(counts)}"
    yield f"{result.benchmark} / {result.task}: {n} questions ({result.split} split, greedy, {result.view} image)"
    second = result.metrics[1] if len(result.metrics) > 1 else None
    header = ["policy", how.label + how.unit, "gain, points" if how.percent else "gain"]
    header += [measure(second).label + measure(second).unit] if second else []
    yield from _aligned([*header, "unparsed"], {p: _text_cells(result, p, second) for p in result.rows})
    sentences = verdict_sentences(result)
    if pairs := without_image(metrics, result):
        sentences.append(without_image_sentence(pairs, result.primary))
    for sentence in sentences:
        plain = sentence.replace("\u2212", "-")
        yield from textwrap.wrap(
            plain[0].upper() + plain[1:] + ".", TEXT_WIDTH, subsequent_indent="  ", break_on_hyphens=False
        )


def _aligned(header: list[str], rows: Mapping[str, list[tuple[str, str]]]) -> Iterator[str]:
    """Lines of a table whose cells are (number, interval): numbers end, and intervals begin, in one column."""
    numbers = [max(len(cells[i][0]) for cells in rows.values()) for i in range(len(header) - 1)]
    lines = [header] + [
        [p, *(f"{v.rjust(w)} {rest}".rstrip() for (v, rest), w in zip(cells, numbers, strict=True))]
        for p, cells in rows.items()
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(1, len(header))]
    name_width = min(max(len(line[0]) for line in lines), TEXT_WIDTH - sum(widths) - 2 * len(widths))
    for i, (name, *texts) in enumerate(lines):
        if len(name) > name_width:
            yield from textwrap.wrap(name, TEXT_WIDTH, break_on_hyphens=False)
        shown = name if len(name) <= name_width else ""
        yield "  ".join([shown.ljust(name_width), *(t.ljust(w) for t, w in zip(texts, widths, strict=True))]).rstrip()
        if i == 0:
            yield "-" * (name_width + sum(widths) + 2 * len(widths))


def _text_cells(result: Result, policy: str, second: str | None) -> list[tuple[str, str]]:
    how, row = measure(result.primary), result.rows[policy].get(result.primary)
    cells = [_value_and_interval(row, how)]
    if not result.trained(policy):
        cells.append(("base", ""))
    elif row is None:
        cells.append(("n/a", ""))
    else:
        star = " *" if verdict(row, result.primary) in ("better", "worse") else ""
        interval = how.difference_interval(row["gain_ci_low"], row["gain_ci_high"])
        cells.append((_ascii(how.difference(row["gain"])), _ascii(interval) + star))
    if second:
        cells.append(_value_and_interval(result.rows[policy].get(second), measure(second)))
    return [*cells, (str(result.failed(policy)), "")]


def _value_and_interval(row: Row | None, how: Measure) -> tuple[str, str]:
    if row is None:
        return "n/a", ""
    return _ascii(how.number(row["value"])), _ascii(how.interval(row["ci_low"], row["ci_high"]))


def _ascii(shown: str) -> str:
    return shown.replace("\u2212", "-")
