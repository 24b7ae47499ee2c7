"""The report's sections on experiments that train in rounds: curves over rounds, and training logs.

Round k trains on answers sampled from the policy of round k - 1; round 0 is the base model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import polars as pl

from perceptune.contracts.paths import ROUND_MARK
from perceptune.report import charts
from perceptune.report.result_text import TEXT_WIDTH, text_lines
from perceptune.report.results import (
    FIXED,
    Result,
    Row,
    measure,
    sampled,
    verdict,
    without_image,
)
from perceptune.report.sections.attention import POINTS, text_columns
from perceptune.report.svg import Svg, finite

PANELS = {
    "reward": "mean reward of the sampled answers",
    "zero_variance": "groups with equal rewards",
    "length": "tokens per answer",
    "truncated": "answers truncated at the token limit",
    "loss": "loss",
    "entropy": "entropy per token",
    "clip_fraction": "tokens whose loss is clipped",
    "old_kl": "KL from the policy at the round's start",
    "engine_gap": "log-prob difference, sampler to trainer",
    "perception_kl": "KL between full and masked image",
    "masked_nll": "negative log-likelihood, masked image",
    "contrast_margin": "contrast margin",
    "selected": "tokens selected for the contrast, per answer",
    "removed_entropy": "entropy with the object removed",
    "reference_kl": "KL from the base model",
}
"""Titles of the plotted training metrics, in panel order; other metrics are not plotted."""
SHARES = ("zero_variance", "truncated", "clip_fraction")
ROUND = rf"{ROUND_MARK}\d+$"
"""Pattern of the end of a round's policy name, as in `grpo@2`."""
MOST_PAIRS = 4
"""With more pairs of experiments than this, sentences count pairs instead of naming them."""
MOST_TURNS = 24
"""Maximum number of round boundaries that are drawn."""


@dataclass(frozen=True)
class Rounds:
    """An experiment that trains in rounds."""

    experiment: str
    policies: dict[int, str]
    """Evaluated round number to policy, in order."""
    count: int
    """Total number of rounds."""
    stopped: tuple[int, str] | None = None
    """The round in which training was stopped by a limit, and the reason."""

    @property
    def last(self) -> str:
        """The policy of the last evaluated round, which represents the experiment."""
        return self.policies[max(self.policies)]

    def handed_on(self, number: int) -> str:
        """The adapter of a round after training was stopped; empty for earlier rounds."""
        if self.stopped is None or number < self.stopped[0]:
            return ""
        return f"round {self.stopped[0] - 1}'s adapter" if self.stopped[0] > 1 else "the base model"

    @property
    def stop_sentence(self) -> str:
        """In which round training was stopped, why, and the adapter of the remaining rounds.

        Empty if training was not stopped.
        """
        if self.stopped is None:
            return ""
        first, reason = self.stopped
        which = f"round {first} uses" if first == self.count else f"rounds {first} to {self.count} use"
        return f"{self.experiment}: stopped in round {first}: {reason}; {which} {self.handed_on(first)}"


@dataclass(frozen=True)
class Curve:
    """Scores of one benchmark and task under one condition, over the rounds."""

    name: str
    title: str
    metric: str
    rows: Mapping[str, Row]
    spreads: Mapping[str, float]
    """Policy to standard deviation over runs; empty without runs."""


def earlier_policies(rounds: Sequence[Rounds]) -> set[str]:
    """Policies of all rounds but the last evaluated one; only the section on rounds shows them."""
    return {policy for r in rounds for policy in r.policies.values() if policy != r.last}


def handed_on(rounds: Sequence[Rounds]) -> dict[str, str]:
    """Last policy to a description of its adapter, for experiments that were stopped."""
    return {r.last: adapter for r in rounds if (adapter := r.handed_on(max(r.policies)))}


def curves(metrics: pl.DataFrame, result: Result) -> list[Curve]:
    """Curves of greedy answers, the mean of sampled answers, and greedy answers without the image.

    Conditions that were not evaluated have no curve.
    """
    how = measure(result.primary)
    primary = {p: cells[result.primary] for p, cells in result.rows.items() if result.primary in cells}
    found = [Curve("greedy", f"{how.label}, greedy", result.primary, primary, {})]
    if drawn := sampled(metrics, result):
        title = f"{drawn.label}: {measure(drawn.metric).label}, mean of {drawn.n} answers"
        found.append(Curve(drawn.label, title, drawn.metric, drawn.rows, drawn.spreads))
    if blank := without_image(metrics, result):
        rows = {p: row for p, (_, row) in blank.items()}
        found.append(Curve("no image", f"{how.label}, no image", result.primary, rows, {}))
    return found


def rounds_section(
    metrics: pl.DataFrame,
    result: Result,
    rounds: Sequence[Rounds],
    base: Mapping[str, str],
    styles: Mapping[str, str],
) -> dict[str, Any] | None:
    """Curves over rounds, table and sentences; None without evaluated experiments with rounds.

    `styles` also contains the names of experiments; `base` maps policies to their base models.
    """
    tested = [r for r in rounds if set(r.policies.values()) & set(result.rows)]
    if not tested:
        return None
    all_curves = curves(metrics, result)
    return {
        "result": result,
        "names": [*_bases(rounds, base), *(r.experiment for r in tested)],
        "spread": any(curve.spreads for curve in all_curves),
        "panels": [_panel(curve, tested, base, styles, result.name) for curve in all_curves],
        "columns": [_title(curve) for curve in all_curves],
        "rows": list(_rows(all_curves, tested, base, styles)),
        "sentences": [
            *filter(None, (sentence(c, tested) for c in all_curves for sentence in (gain_sentence, fall_sentence))),
            *filter(None, [apart_sentence(all_curves, tested)]),
        ],
    }


def _panel(
    curve: Curve, rounds: Sequence[Rounds], base: Mapping[str, str], styles: Mapping[str, str], about: str
) -> Svg:
    rows = [(r.experiment, k, curve.rows.get(p)) for r in rounds for k, p in _numbered(r, base)]
    # The bases come last, so that their markers are drawn over the start of the curves.
    rows += [(b, 0, curve.rows.get(b)) for b in _bases(rounds, base)]
    points = [(s, float(k), row["value"], row["ci_low"], row["ci_high"]) for s, k, row in rows if row is not None]
    return charts.line_panel(
        pl.DataFrame(points, schema=POINTS, orient="row"),
        title=curve.title,
        x_label="round (0 = base model)",
        styles=styles,
        percent=measure(curve.metric).percent,
        whiskers=True,
        whole=True,
        start=0.0,
        about=about,
    )


def _numbered(r: Rounds, base: Mapping[str, str]) -> list[tuple[int, str]]:
    """Round numbers with their policies, including the base model as round 0."""
    return [(0, base[r.last]), *r.policies.items()]


def _bases(rounds: Sequence[Rounds], base: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(base[r.last] for r in rounds))


def _title(curve: Curve) -> str:
    return measure(curve.metric).headed(curve.name)


def _rows(
    all_curves: Sequence[Curve], rounds: Sequence[Rounds], base: Mapping[str, str], styles: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Table rows: the base models, then the rounds of each experiment."""
    entries = [(b, 0, b, "") for b in _bases(rounds, base)]
    entries += [(r.experiment, k, p, r.handed_on(k)) for r in rounds for k, p in r.policies.items()]
    for name, number, policy, note in entries:
        cells = [_cell(curve, policy) for curve in all_curves]
        yield {"name": name, "style": styles.get(name, "rest"), "round": number, "note": note, "cells": cells}


def _cell(curve: Curve, policy: str) -> dict[str, str]:
    how, row, spread = measure(curve.metric), curve.rows.get(policy), curve.spreads.get(policy)
    if row is None:
        return dict.fromkeys(("interval", "spread", "gain", "gain_interval"), "") | {"value": "n/a"}
    star = " *" if verdict(row, curve.metric) in ("better", "worse") else ""
    return {
        "value": how.number(row["value"]),
        "interval": how.interval(row["ci_low"], row["ci_high"]),
        "spread": "" if spread is None else f"sd {how.number(spread)}",
        "gain": how.difference(row["gain"]) + star if finite(row["gain"]) else "",
        "gain_interval": how.difference_interval(row["gain_ci_low"], row["gain_ci_high"]),
    }


def gain_sentence(curve: Curve, rounds: Sequence[Rounds]) -> str:
    """Which experiments differ from the base model in their last round; empty without gains."""
    how, points = measure(curve.metric), " points" if measure(curve.metric).percent else ""
    by_verdict: dict[str, list[str]] = {}
    for r in rounds:
        row = curve.rows.get(r.last)
        if row is not None and finite(row["gain"]):
            interval = how.difference_interval(row["gain_ci_low"], row["gain_ci_high"])
            gain = f"{how.difference(row['gain'])}{points} {interval}".rstrip()
            named = f"{r.experiment} ({gain})".replace(" ", FIXED)
            by_verdict.setdefault(verdict(row, curve.metric), []).append(named)
    better, worse = "better", "worse"
    if curve.name == "no image":  # a higher score without the image is not an improvement
        better, worse = ("lower", "higher") if how.lower_is_better else ("higher", "lower")
    endings = {"better": f"{better} than the base", "worse": f"{worse} than the base"}
    endings |= {"same": "not distinguishable from the base", "unknown": "without an interval"}
    endings |= {"few": "with too few questions to tell"}
    parts = [f"{', '.join(by_verdict[v])} {endings[v]}" for v in endings if v in by_verdict]
    return f"last round, {curve.name}: {'; '.join(parts)}" if parts else ""


def fall_sentence(curve: Curve, rounds: Sequence[Rounds]) -> str:
    """Which experiments end worse than the interval of their best round.

    Empty if there are none.
    """
    falls = [fall for r in rounds if (fall := _fall(curve, r))]
    if not falls or curve.name == "no image":
        return ""
    return (
        f"last round worse than the best round, {curve.name}: {', '.join(falls)}; "
        "selecting a round on this benchmark would overestimate its score"
    )


def _fall(curve: Curve, r: Rounds) -> str:
    """`papo (56.0 in round 2, last 42.0)` if the last round is worse than the best's interval."""
    how, last = measure(curve.metric), curve.rows.get(r.last)
    rows = {k: curve.rows[p] for k, p in r.policies.items() if p in curve.rows and _has_interval(curve.rows[p])}
    if last is None or not rows or not finite(last["value"]):
        return ""
    best = (min if how.lower_is_better else max)(rows, key=lambda k: rows[k]["value"])
    beyond = last["value"] > rows[best]["ci_high"] if how.lower_is_better else last["value"] < rows[best]["ci_low"]
    values = (how.number(row["value"]) for row in (rows[best], last))
    return f"{r.experiment} ({next(values)} in round {best}, last {next(values)})".replace(" ", FIXED) if beyond else ""


def apart_sentence(all_curves: Sequence[Curve], rounds: Sequence[Rounds]) -> str:
    """Which experiments have last rounds whose intervals do not overlap.

    The metrics table has no paired comparison between experiments, so that intervals are all there
    is to compare. Empty with fewer than two experiments.
    """
    found = []
    for curve in all_curves:
        last = {r.experiment: row for r in rounds if (row := curve.rows.get(r.last)) and _has_interval(row)}
        if curve.name == "no image" or len(last) < 2:
            continue
        pairs = [
            f"{a} {'above' if x['value'] > y['value'] else 'below'} {b}"
            for (a, x), (b, y) in combinations(last.items(), 2)
            if x["ci_low"] > y["ci_high"] or y["ci_low"] > x["ci_high"]
        ]
        total = len(last) * (len(last) - 1) // 2
        named = ", ".join(pairs) if len(pairs) <= MOST_PAIRS else f"{len(pairs)} of {total} pairs"
        rest = " and overlap for the others" if len(pairs) < total else ""
        found.append(f"{curve.name} intervals {f'do not overlap for {named}{rest}' if pairs else 'all overlap'}")
    if not found:
        return ""
    return (
        f"between experiments, last round: {'; '.join(found)}. Overlapping intervals show no difference; "
        "only comparisons with the base are paired by question"
    )


def _has_interval(row: Row) -> bool:
    return all(finite(row[c]) for c in ("value", "ci_low", "ci_high"))


def round_lines(
    metrics: pl.DataFrame, found: Sequence[Result], rounds: Sequence[Rounds], base: Mapping[str, str]
) -> list[str]:
    """The section on rounds as plain text of at most `TEXT_WIDTH` columns; empty without rounds."""
    lines: list[str] = []
    for result in found:
        tested = [r for r in rounds if set(r.policies.values()) & set(result.rows)]
        if not tested:
            continue
        all_curves, how = curves(metrics, result), measure(result.primary)
        numbers = sorted({k for r in tested for k in r.policies} | {0})
        rows = {}
        for r in tested:
            policies = dict(_numbered(r, base))
            for curve in all_curves:
                cells = [_cell(curve, policies[k]) if k in policies else None for k in numbers]
                rows[f"{r.experiment}, {curve.name}"] = [
                    c["value"] + ("*" if c["gain"].endswith("*") else "") if c else "" for c in cells
                ]
        title = f"{result.name}: {how.heading} by round (0 = base model)"
        lines += ["", *text_lines(title)]
        lines += text_columns([str(k) for k in numbers], rows, TEXT_WIDTH, "experiment")
        # The result table above already has the sentence on greedy answers.
        sentences = [gain_sentence(curve, tested) for curve in all_curves[1:]]
        sentences += [fall_sentence(curve, tested) for curve in all_curves]
        for sentence in filter(None, [*sentences, apart_sentence(all_curves, tested)]):
            lines += text_lines(sentence[0].upper() + sentence[1:] + ".")
    stops = [line for r in rounds if r.stopped for line in text_lines(r.stop_sentence + ".")]
    return lines + (["", *stops] if stops else [])


def trained_once(training: pl.DataFrame, rounds: Sequence[Rounds]) -> pl.DataFrame:
    """The rows of a training table that do not belong to a round."""
    return training.filter(~_in_rounds(training, rounds))


def training_section(
    training: pl.DataFrame, rounds: Sequence[Rounds], styles: Mapping[str, str]
) -> dict[str, Any] | None:
    """One line per experiment over the steps of all its rounds; None without training logs.

    Lines are smoothed within each round over `window` steps.
    """
    logs, ends = cumulative(training.filter(_in_rounds(training, rounds), pl.col("value").is_finite()))
    if logs.is_empty():
        return None
    window = max(1, round(max(end for of_one in ends.values() for end in of_one) / 20))
    turns = sorted({end + 0.5 for of_one in ends.values() for end in of_one[:-1]})
    names = set(logs["metric"])
    panels = []
    for metric in [m for m in PANELS if m in names]:
        points = charts.smoothed(logs.filter(metric=metric).select(series="policy", x="step", y="value"), window)
        panels.append(
            charts.line_panel(
                points.with_columns(series=pl.col("series").str.replace(ROUND, "")),
                title=PANELS[metric],
                x_label="optimiser step, all rounds",
                styles=styles,
                percent=metric in SHARES,
                turns=turns if len(turns) <= MOST_TURNS else (),
            )
        )
    return {
        "panels": panels,
        "window": window,
        "names": [r.experiment for r in rounds if r.experiment in ends],
        "others": sorted(names - set(PANELS)),
    }


def cumulative(logs: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, list[float]]]:
    """Rows of rounds with `policy`, `experiment` and a `step` that runs through all rounds.

    Also returns the last step of each round with steps, by experiment.
    """
    parts = pl.col("experiment").str.split(ROUND_MARK)
    logs = logs.with_columns(
        policy="experiment", experiment=pl.col("experiment").str.replace(ROUND, ""), k=parts.list.last().cast(pl.Int64)
    )
    lengths = logs.group_by("experiment", "k").agg(steps=pl.col("step").max()).sort("experiment", "k")
    lengths = lengths.with_columns(end=pl.col("steps").cum_sum().over("experiment"))
    before = lengths.select("experiment", "k", before=pl.col("end") - pl.col("steps"))
    counted = logs.join(before, ["experiment", "k"], "left", maintain_order="left")
    counted = counted.with_columns(step=(pl.col("step") + pl.col("before")).cast(pl.Float64)).drop("k", "before")
    ends: dict[str, list[float]] = {}
    for experiment, end in lengths.select("experiment", "end").iter_rows():
        ends.setdefault(experiment, []).append(float(end))
    return counted, ends


def _in_rounds(training: pl.DataFrame, rounds: Sequence[Rounds]) -> pl.Series:
    """Whether each row belongs to a round, that is, its experiment is named `<experiment>@<k>`."""
    names = [r.experiment for r in rounds]
    experiment = training["experiment"]
    return experiment.str.contains(ROUND) & experiment.str.replace(ROUND, "").is_in(names)
