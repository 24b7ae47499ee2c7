"""Sections of the report about experiments that learn in rounds: learning curves over rounds, and one training line each.

Like `core.sections`: frames to plain values and drawings. Round k learns from samples of round k - 1's policy; 0 is the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import polars as pl

from perceptune.contracts.paths import ROUND_MARK
from perceptune.report import charts
from perceptune.report.charts import Svg
from perceptune.report.results import (
    FIXED,
    TEXT_WIDTH,
    Result,
    Row,
    finite,
    measure,
    sampled,
    text_lines,
    verdict,
    without_image,
)
from perceptune.report.sections.attention import POINTS, text_columns

PANELS = {
    "reward": "mean reward of the sampled answers",
    "zero_variance": "groups whose answers all score the same",
    "length": "tokens of an answer",
    "truncated": "answers cut at the limit of tokens",
    "loss": "loss",
    "entropy": "entropy of a token",
    "clip_high": "tokens clipped above",
    "old_kl": "divergence from the round's start",
    "engine_gap": "sampler against trainer, log-probability",
    "perception_kl": "divergence where the image is masked",
    "masked_nll": "surprise where the image is masked",
    "contrast_margin": "contrast margin",
    "selected": "tokens chosen for the contrast, per answer",
    "removed_entropy": "entropy where the object is removed",
    "reference_kl": "divergence from the base model",
}
"""Training metrics of rounds that are drawn, in the order of their panels; the others are in the training tables."""
SHARES = ("zero_variance", "truncated", "clip_high")
ROUND = rf"{ROUND_MARK}\d+$"
"""How a round's policy ends: `grpo@2`."""
MOST_PAIRS = 4
"""Pairs of experiments above which a sentence counts them instead of naming all."""
MOST_TURNS = 24
"""Upright lines between rounds up to which they are drawn."""


@dataclass(frozen=True)
class Rounds:
    """An experiment that learns in rounds."""

    experiment: str
    policies: dict[int, str]
    """Evaluated round to its policy, in order."""
    count: int
    """Rounds in all."""
    stopped: tuple[int, str] | None = None
    """The round that a rule stopped, and why."""

    @property
    def last(self) -> str:
        """The policy that the experiment is judged by."""
        return self.policies[max(self.policies)]

    def handed_on(self, number: int) -> str:
        """Which adapter a round after a stop really has; empty for the others."""
        if self.stopped is None or number < self.stopped[0]:
            return ""
        return f"round {self.stopped[0] - 1}'s adapter" if self.stopped[0] > 1 else "the base model"

    @property
    def stop_sentence(self) -> str:
        """Which round was stopped, why, and what became of it; empty if none was."""
        if self.stopped is None:
            return ""
        first, reason = self.stopped
        which = f"round {first} is" if first == self.count else f"rounds {first} to {self.count} are"
        return f"{self.experiment}: stopped in round {first}: {reason}; {which} {self.handed_on(first)}"


@dataclass(frozen=True)
class Curve:
    """One condition of a benchmark and task that is followed over the rounds."""

    name: str
    title: str
    metric: str
    rows: Mapping[str, Row]
    spreads: Mapping[str, float]
    """Policy to the standard deviation over runs, where there are runs."""


def earlier_policies(rounds: Sequence[Rounds]) -> set[str]:
    """Policies of rounds before each experiment's last: only the section about rounds shows them."""
    return {policy for r in rounds for policy in r.policies.values() if policy != r.last}


def handed_on(rounds: Sequence[Rounds]) -> dict[str, str]:
    """Last policies that have the adapter of another round, with the words for it."""
    return {r.last: words for r in rounds if (words := r.handed_on(max(r.policies)))}


def curves(metrics: pl.DataFrame, result: Result) -> list[Curve]:
    """Greedy, the mean of the sampled answers, and greedily without the image: what there is of these."""
    how = measure(result.primary)
    primary = {p: cells[result.primary] for p, cells in result.rows.items() if result.primary in cells}
    found = [Curve("greedy", f"{how.label}, greedy", result.primary, primary, {})]
    if drawn := sampled(metrics, result):
        title = f"{drawn.label}: {measure(drawn.metric).label}, mean of {drawn.n} answers"
        found.append(Curve(drawn.label, title, drawn.metric, drawn.rows, drawn.spreads))
    if blank := without_image(metrics, result):
        unseen = {p: row for p, (_, row) in blank.items()}
        found.append(Curve("no image", f"{how.label}, no image", result.primary, unseen, {}))
    return found


def rounds_section(
    metrics: pl.DataFrame,
    result: Result,
    rounds: Sequence[Rounds],
    base: Mapping[str, str],
    styles: Mapping[str, str],
) -> dict[str, Any] | None:
    """Curves over rounds, their numbers, and what they say; None where no experiment with rounds is tested.

    `styles` has the experiments' names, too; `base` maps policies to their base models.
    """
    tested = [r for r in rounds if set(r.policies.values()) & set(result.rows)]
    if not tested:
        return None
    followed = curves(metrics, result)
    return {
        "result": result,
        "names": [*_bases(rounds, base), *(r.experiment for r in tested)],
        "spread": any(curve.spreads for curve in followed),
        "panels": [_panel(curve, tested, base, styles) for curve in followed],
        "columns": [_title(curve) for curve in followed],
        "rows": list(_rows(followed, tested, base, styles)),
        "sentences": _told([f(c, tested) for c in followed for f in (gain_sentence, fall_sentence)], followed, tested),
    }


def _told(said: Sequence[str], followed: Sequence[Curve], rounds: Sequence[Rounds]) -> list[str]:
    """The sentences that say something, and the one about experiments against each other."""
    return [sentence for sentence in [*said, apart_sentence(followed, rounds)] if sentence]


def _panel(curve: Curve, rounds: Sequence[Rounds], base: Mapping[str, str], styles: Mapping[str, str]) -> Svg:
    rows = [(r.experiment, k, curve.rows.get(p)) for r in rounds for k, p in _numbered(r, base)]
    rows += [
        (b, 0, curve.rows.get(b)) for b in _bases(rounds, base)
    ]  # last: their mark lies upon the curves' beginnings
    points = [(s, float(k), row["value"], row["ci_low"], row["ci_high"]) for s, k, row in rows if row is not None]
    return charts.line_panel(
        pl.DataFrame(points, schema=POINTS, orient="row"),
        title=curve.title,
        x_label="round, 0 is the base model",
        styles=styles,
        percent=measure(curve.metric).percent,
        whiskers=True,
        whole=True,
        start=0.0,
    )


def _numbered(r: Rounds, base: Mapping[str, str]) -> list[tuple[int, str]]:
    """Rounds with their policies, the base model as round 0."""
    return [(0, base[r.last]), *r.policies.items()]


def _bases(rounds: Sequence[Rounds], base: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(base[r.last] for r in rounds))


def _title(curve: Curve) -> str:
    return curve.name + measure(curve.metric).unit


def _rows(
    followed: Sequence[Curve], rounds: Sequence[Rounds], base: Mapping[str, str], styles: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Table rows: the base models, then each experiment's rounds."""
    places = [(b, 0, b, "") for b in _bases(rounds, base)]
    places += [(r.experiment, k, p, r.handed_on(k)) for r in rounds for k, p in r.policies.items()]
    for name, number, policy, note in places:
        cells = [_cell(curve, policy) for curve in followed]
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
    """Which experiments' last round differs from the base model; empty where nothing is compared."""
    how, points = measure(curve.metric), " points" if measure(curve.metric).percent else ""
    said: dict[str, list[str]] = {}
    for r in rounds:
        row = curve.rows.get(r.last)
        if row is not None and finite(row["gain"]):
            interval = how.difference_interval(row["gain_ci_low"], row["gain_ci_high"])
            gain = f"{how.difference(row['gain'])}{points} {interval}".rstrip()
            named = f"{r.experiment} ({gain})".replace(" ", FIXED)
            said.setdefault(verdict(row, curve.metric), []).append(named)
    better, worse = "better", "worse"
    if curve.name == "no image":  # a better score without the image is no better seeing
        better, worse = ("lower", "higher") if how.lower_is_better else ("higher", "lower")
    words = {"better": f"{better} than the base", "worse": f"{worse} than the base"}
    words |= {"same": "not distinguishable from the base", "unknown": "without an interval"}
    parts = [f"{', '.join(said[v])} {words[v]}" for v in words if v in said]
    return f"last round, {curve.name}: {'; '.join(parts)}" if parts else ""


def fall_sentence(curve: Curve, rounds: Sequence[Rounds]) -> str:
    """Which experiments' last round is worse than a round before, beyond that one's interval; empty if none is."""
    falls = [fall for r in rounds if (fall := _fall(curve, r))]
    if not falls or curve.name == "no image":
        return ""
    return f"worse again in the last round, {curve.name}: {', '.join(falls)}; choosing a round by this benchmark flatters it"


def _fall(curve: Curve, r: Rounds) -> str:
    """`papo (56.0 in round 2, last 42.0)` where the last value lies beyond the interval of the best; else nothing."""
    how, last = measure(curve.metric), curve.rows.get(r.last)
    rows = {k: curve.rows[p] for k, p in r.policies.items() if p in curve.rows and _has_interval(curve.rows[p])}
    if last is None or not rows or not finite(last["value"]):
        return ""
    best = (min if how.lower_is_better else max)(rows, key=lambda k: rows[k]["value"])
    beyond = last["value"] > rows[best]["ci_high"] if how.lower_is_better else last["value"] < rows[best]["ci_low"]
    values = (how.number(row["value"]) for row in (rows[best], last))
    return f"{r.experiment} ({next(values)} in round {best}, last {next(values)})".replace(" ", FIXED) if beyond else ""


def apart_sentence(followed: Sequence[Curve], rounds: Sequence[Rounds]) -> str:
    """Whose last rounds have intervals that do not overlap: all that these numbers say of one experiment against another."""
    found = []
    for curve in followed:
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
        rest = " and overlap otherwise" if len(pairs) < total else ""
        said = f"are apart for {named}{rest}" if pairs else "all overlap"
        found.append(f"{curve.name} intervals {said}")
    if not found:
        return ""
    return (
        f"between experiments, last round: {'; '.join(found)}. Where they overlap, no difference is shown; "
        "experiments are compared with the base question by question, not with each other"
    )


def _has_interval(row: Row) -> bool:
    return all(finite(row[c]) for c in ("value", "ci_low", "ci_high"))


def round_lines(
    metrics: pl.DataFrame, found: Sequence[Result], rounds: Sequence[Rounds], base: Mapping[str, str]
) -> list[str]:
    """The learning curves, what they say and why rounds were stopped, as plain text of at most `TEXT_WIDTH` columns."""
    lines: list[str] = []
    for result in found:
        tested = [r for r in rounds if set(r.policies.values()) & set(result.rows)]
        if not tested:
            continue
        followed, how = curves(metrics, result), measure(result.primary)
        numbers = sorted({k for r in tested for k in r.policies} | {0})
        rows = {}
        for r in tested:
            policies = dict(_numbered(r, base))
            for curve in followed:
                cells = [_cell(curve, policies[k]) if k in policies else None for k in numbers]
                rows[f"{r.experiment}, {curve.name}"] = [
                    c["value"] + ("*" if c["gain"].endswith("*") else "") if c else "" for c in cells
                ]
        place = f"{result.benchmark} / {result.task}: {how.label}{how.unit} by round, 0 is the base model"
        lines += ["", *text_lines(place)]
        lines += text_columns([str(k) for k in numbers], rows, TEXT_WIDTH, "experiment")
        said = [gain_sentence(curve, tested) for curve in followed[1:]]  # the result above says it of greedy answers
        said += [fall_sentence(curve, tested) for curve in followed]
        for sentence in _told(said, followed, tested):
            lines += text_lines(sentence[0].upper() + sentence[1:] + ".")
    stops = [line for r in rounds if r.stopped for line in text_lines(r.stop_sentence + ".")]
    return lines + (["", *stops] if stops else [])


def trained_once(training: pl.DataFrame, rounds: Sequence[Rounds]) -> pl.DataFrame:
    """The rows of a training table that belong to no round."""
    return training.filter(~_in_rounds(training, rounds))


def training_section(
    training: pl.DataFrame, rounds: Sequence[Rounds], styles: Mapping[str, str]
) -> dict[str, Any] | None:
    """One line per experiment over the optimiser steps of all its rounds; None where no round has trained.

    Lines are smoothed within a round, over the window (in steps) that is returned, too.
    """
    logs, ends = cumulative(training.filter(_in_rounds(training, rounds), pl.col("value").is_finite()))
    if logs.is_empty():
        return None
    window = max(1, round(max(end for of_one in ends.values() for end in of_one) / 20))
    turns = sorted({end + 0.5 for of_one in ends.values() for end in of_one[:-1]})
    there = set(logs["metric"])
    panels = []
    for metric in [m for m in PANELS if m in there]:
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
        "others": sorted(there - set(PANELS)),
    }


def cumulative(logs: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, list[float]]]:
    """Training rows of rounds `<experiment>@<k>` with `policy`, `experiment` and the `step` counted through all rounds.

    Also the last step of each round that has any, by experiment.
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
    """Whether each row is of a round: its experiment is called `<experiment>@<k>`."""
    names = [r.experiment for r in rounds]
    experiment = training["experiment"]
    return experiment.str.contains(ROUND) & experiment.str.replace(ROUND, "").is_in(names)
