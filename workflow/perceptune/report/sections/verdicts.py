"""Gain or format? What else than better seeing may explain a gain, by rule and in words.

A control is what a policy's gain is held against (`stages.comparing`). Of a policy whose gain excludes 0, a control accounts for
the gain minus the paired difference that it leaves; it

* explains the gain: it accounts for at least half of it, and the difference includes 0 or is on the control's side;
* explains it partly: at least half, but the difference excludes 0;
* leaves it undecided: less than half, but the difference includes 0, so that more questions are needed to tell;
* does not explain it: less than half, and the difference excludes 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import polars as pl

from perceptune.report.results import MANY, Result, Row, measure, verdict
from perceptune.report.sections.attention import noise_rows

CONTROLS = ("prompt", "blank", "mean_of_n", "sft_on_best")
"""What can explain a gain, in the order of columns and sentences."""
HALF = 0.5
"""Share of the gain from which on a control explains it."""
Says = Literal["explained", "partly", "undecided", "not"]


class Controlled(NamedTuple):
    """All that is known of the controls, besides the metrics."""

    table: pl.DataFrame
    """The `controls` tables of all policies."""
    prompts: Mapping[str, Sequence[str]]
    """Benchmark to its own prompt and, from place 1 on, the other ones that base models were asked with."""
    twinless: Mapping[str, str]
    """Policy to the words for why there is no SFT on the best answers to compare it with."""

    @property
    def policies(self) -> set[str]:
        """Those that are held against controls."""
        return set(self.table["policy"])


def says(row: Row) -> Says:
    """What a control's row says of a gain, by the rule of this module."""
    sign = _sign(row["metric"])
    gain, left = sign * row["gain"], min(sign * row["ci_low"], sign * row["ci_high"])
    half = gain > 0 and accounted(row) >= HALF * gain
    if left > 0:
        return "partly" if half else "not"
    return "explained" if half else "undecided"


def accounted(row: Row) -> float:
    """How much of the gain a control accounts for, in the metric's better direction."""
    return float(_sign(row["metric"]) * (row["gain"] - row["difference"]))


def _sign(metric: str) -> int:
    return -1 if measure(metric).lower_is_better else 1


def control_rows(controlled: Controlled, result: Result, policy: str) -> dict[str, Row]:
    """Control to its row for one policy; of the prompts the one under which the base does best, its own first."""
    rows = controlled.table.filter(
        pl.col("policy") == policy,
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
        pl.col("view") == result.view,
    )
    found: dict[str, Row] = {}
    for row in rows.sort("k", maintain_order=True).iter_rows(named=True):
        best, sign = found.get(row["control"]), _sign(row["metric"])
        if best is None or sign * row["control_value"] > sign * best["control_value"]:
            found[row["control"]] = row
    return {control: found[control] for control in CONTROLS if control in found}


def best_of(metrics: pl.DataFrame, result: Result) -> dict[str, Row]:
    """Policy to the row of its best of N answers, N the largest, in the primary metric or, without that, the first there is."""
    rows = metrics.filter(
        pl.col("condition") == "best_of_n",
        pl.col("benchmark") == result.benchmark,
        pl.col("split") == result.split,
        pl.col("task") == result.task,
    )
    names = rows["metric"].unique(maintain_order=True).to_list()
    if not names:
        return {}
    own = rows.filter(pl.col("metric") == (result.primary if result.primary in names else names[0]))
    return {row["policy"]: row for row in own.filter(pl.col("k") == own["k"].max()).iter_rows(named=True)}


def gains(result: Result, controlled: Controlled) -> list[str]:
    """Policies with something to explain: a gain in the primary metric whose interval excludes 0; the largest first."""
    rows = {p: c[result.primary] for p, c in result.rows.items() if p in controlled.policies and result.primary in c}
    better = [p for p, row in rows.items() if verdict(row, result.primary) == "better"]
    return sorted(better, key=lambda p: -abs(rows[p]["gain"]))


def sentences(
    metrics: pl.DataFrame, result: Result, noise: Mapping[str, float], controlled: Controlled
) -> list[tuple[str, str]]:
    """What the controls say, as pairs of policy and words; of many gains only how many each control explains, of no policy."""
    gaining = gains(result, controlled)
    if not gaining:
        return [("", "no gain whose interval excludes 0, so there is nothing to explain")]
    told = {p: control_rows(controlled, result, p) for p in gaining}
    if len(gaining) > MANY:
        return [("", sentence) for sentence in _counted(told)]
    found = []
    for policy in gaining:
        why = controlled.twinless.get(policy)
        said = [
            *_of_policy(told[policy], result, controlled),
            f"no SFT on the best answers to compare with: {why}" if why else "",
            _sharpened(metrics, result, policy),
            _noisy(metrics, result, noise, policy),
        ]
        found += [(policy, sentence) for sentence in said if sentence]
    return found


def headline(result: Result, controlled: Controlled) -> str:
    """In one sentence, which gains are explained; empty where there is none to explain."""
    told = {p: control_rows(controlled, result, p) for p in gains(result, controlled)}
    if not told:
        return ""
    if len(told) > MANY:
        return f"gain or format? {'; '.join(_counted(told))}"
    by: dict[str, list[str]] = {}
    for policy, rows in told.items():
        whole = [_named(row) for row in rows.values() if says(row) == "explained"]
        part = [_named(row) for row in rows.values() if says(row) == "partly"]
        words = [f"explained by {_and(whole)}"] if whole else []
        words += [f"partly explained by {_and(part)}"] if part else []
        by.setdefault(", ".join(words) or "not explained by any of the controls", []).append(policy)
    return f"gain or format? {'; '.join(f'{_and(policies)}: {words}' for words, policies in by.items())}"


def _of_policy(rows: Mapping[str, Row], result: Result, controlled: Controlled) -> Iterator[str]:
    """What explains a gain, what may, and what does not."""
    for row in rows.values():
        if says(row) != "not":
            yield _told(row, result, controlled)
    rest = [row for row in rows.values() if says(row) == "not"]
    if rest and len(rest) == len(rows):
        yield f"the gain is not explained by any of the controls: {', '.join(map(_weighed, rest))}"
    elif rest:
        yield f"not explained by {', '.join(map(_weighed, rest))}"


def _weighed(row: Row) -> str:
    """A control that explains nothing, and how much it accounts for."""
    own = row["control"] == "prompt" and row["k"] == 0
    return f"{_named(row)} ({'none is better for the base' if own else f'accounts for {_share(row)}'})"


def _told(row: Row, result: Result, controlled: Controlled) -> str:
    """A control that explains a gain, in whole or in part, or may."""
    how, control = measure(row["metric"]), row["control"]
    points = " points" if how.percent else ""
    includes = "includes 0" if row["ci_low"] <= 0 <= row["ci_high"] else "excludes 0"
    if includes == "excludes 0" and says(row) == "explained":
        includes = "is on the control's side"
    left = f"{how.difference(row['difference'])} {how.difference_interval(row['ci_low'], row['ci_high'])}{points}"
    scores = f"{how.number(row['control_value'])}{how.unit}, the policy {how.number(row['value'])}{how.unit}"
    what = {
        "prompt": f"{_asked(row, result, controlled) if control == 'prompt' else ''} the base scores {scores}",
        "blank": f"{_share(row)} of the gain remain with a blank image",
        "mean_of_n": f"an average one of {row['k']} sampled answers of the base scores {scores}",
        "sft_on_best": f"{row['against']}, on the same lists with the same budget, scores {scores}",
    }[control]
    opening = {
        "explained": f"{'seen without the image, too' if control == 'blank' else f'explained by {_named(row)}'}: {what}",
        "partly": f"partly explained by {_named(row)}, which accounts for {_share(row)}: {what}",
        "undecided": f"not decided by {_named(row)}, which accounts for {_share(row)}: {what}",
        "not": "",
    }[says(row)]
    rest = "what the image adds" if control == "blank" else "the paired difference"
    more = "; more questions would tell" if says(row) == "undecided" else ""
    return f"{opening}; {rest}, {left}, {includes}{more}"


def _asked(row: Row, result: Result, controlled: Controlled) -> str:
    """The prompt of a row, as a sentence has it."""
    prompt = " ".join(controlled.prompts[result.benchmark][row["k"]].split())
    return f"under prompt {row['k']} (\u201c{prompt}\u201d)" if row["k"] else "under its own prompt"


def _share(row: Row) -> str:
    """`1.0 of 6.0 points`."""
    how = measure(row["metric"])
    part = how.number(accounted(row)).replace("-", "\u2212")
    return f"{part} of {how.number(abs(row['gain']))}{' points' if how.percent else ''}"


def _named(row: Row) -> str:
    return {
        "prompt": "another prompt",
        "blank": "a blank image",
        "mean_of_n": f"the mean of {row['k']} answers",
        "sft_on_best": "SFT on the best answers",
    }[row["control"]]


def _sharpened(metrics: pl.DataFrame, result: Result, policy: str) -> str:
    """Whether the policy has answers that its base model had not, by the best of many."""
    row = best_of(metrics, result).get(policy)
    if row is None or verdict(row, row["metric"]) == "unknown":
        return ""
    how, n = measure(row["metric"]), row["k"]
    gain = f"{how.difference(row['gain'])} {how.difference_interval(row['gain_ci_low'], row['gain_ci_high'])}"
    found = f"{how.number(row['value'])}{how.unit} against {how.number(row['base_value'])}{how.unit} ({gain})"
    what = {
        "better": "is better, too: it finds answers that the base did not draw",
        "worse": "is worse: training gave up answers that the base draws",
        "same": f"cannot be told apart: as far as {n} answers show, training chose among those that the base gives already",
    }[verdict(row, row["metric"])]
    return f"the best of {n} answers each, {found}, {what}"


def _noisy(metrics: pl.DataFrame, result: Result, noise: Mapping[str, float], policy: str) -> str:
    """Under which noise the gain is there; that alone says nothing of what explains it."""
    levels, found = noise_rows(metrics, result, noise)
    rows = [(s, row) for s, row in zip(levels, found.get(policy, []), strict=False) if row is not None and s]
    there = [f"{sigma:g}" for sigma, row in rows if verdict(row, result.primary) == "better"]
    gone = [f"{sigma:g}" for sigma, row in rows if verdict(row, result.primary) != "better"]
    if not rows:
        return ""
    if not there:
        return f"under noise of sigma {_and(gone)} no gain can be told from 0"
    return f"under noise the gain is there at sigma {_and(there)}" + (f", not at {_and(gone)}" if gone else "")


def _counted(told: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """How many of many gains each control explains, and how many none does."""
    found = []
    for control in CONTROLS:
        held = {p: rows[control] for p, rows in told.items() if control in rows}
        by = [p for p, row in held.items() if says(row) == "explained"]
        if held:
            name = _named(next(iter(held.values())))
            found.append(
                f"{name} explains {len(by)} of {len(held)} gains" + (f", the largest that of {by[0]}" if by else "")
            )
    none = sum(not any(says(row) == "explained" for row in rows.values()) for rows in told.values())
    return [*found, f"{none} of {len(told)} gains are not explained by any of the controls"]


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
