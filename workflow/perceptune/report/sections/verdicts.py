"""Whether something other than better perception explains a gain: the rule and the sentences.

`stages.evaluation.compare_controls` compares a policy's gain with controls. For a gain whose
interval excludes 0, a control accounts for the gain minus the paired difference that remains. It

* explains the gain if it accounts for at least half, and the difference includes 0 or favours the
  control;
* partly explains it if it accounts for at least half, but the difference excludes 0;
* leaves it undecided if it accounts for less than half, but the difference includes 0: more
  questions are needed;
* does not explain it if it accounts for less than half, and the difference excludes 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import polars as pl

from perceptune.report.results import MANY, Result, Row, measure, verdict
from perceptune.report.sections.attention import noise_rows

CONTROLS = ("prompt", "blank", "mean_of_n", "sft_on_best")
"""The controls that can explain a gain, in the order of columns and sentences."""
HALF = 0.5
"""Minimum share of the gain that a control accounts for to explain it."""
Explanation = Literal["explained", "partly", "undecided", "not"]


class Controlled(NamedTuple):
    """The control comparisons of all policies."""

    table: pl.DataFrame
    """The `controls` tables of all policies."""
    prompts: Mapping[str, Sequence[str]]
    """Benchmark to its prompt, followed by the additional prompts of the base models."""
    no_counterpart: Mapping[str, str]
    """Policy without an SFT counterpart to the reason for that."""

    @property
    def policies(self) -> set[str]:
        """Policies that are compared with controls."""
        return set(self.table["policy"])


def explanation(row: Row) -> Explanation:
    """Whether a control explains a gain, for a row of a `controls` table."""
    sign = _sign(row["metric"])
    gain, lowest = sign * row["gain"], min(sign * row["ci_low"], sign * row["ci_high"])
    half = gain > 0 and accounted(row) >= HALF * gain
    if lowest > 0:
        return "partly" if half else "not"
    return "explained" if half else "undecided"


def accounted(row: Row) -> float:
    """The part of the gain that a control accounts for; positive means better for any metric."""
    return float(_sign(row["metric"]) * (row["gain"] - row["difference"]))


def _sign(metric: str) -> int:
    return -1 if measure(metric).lower_is_better else 1


def control_rows(controlled: Controlled, result: Result, policy: str) -> dict[str, Row]:
    """Control to its row for one policy; for prompts, the row of the base's best prompt.

    Ties go to the first prompt.
    """
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
    """Policy to the row of its best of N answers with the largest N, in the primary metric.

    If the primary metric has no best of N, the first metric that has one is used.
    """
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
    """Policies with a gain in the primary metric whose interval excludes 0, largest gain first."""
    rows = {p: c[result.primary] for p, c in result.rows.items() if p in controlled.policies and result.primary in c}
    better = [p for p, row in rows.items() if verdict(row, result.primary) == "better"]
    return sorted(better, key=lambda p: -abs(rows[p]["gain"]))


def sentences(
    metrics: pl.DataFrame, result: Result, noise: Mapping[str, float], controlled: Controlled
) -> list[tuple[str, str]]:
    """(policy, sentence) on what the controls explain.

    For more than `MANY` gains, only the number that each control explains, with an empty policy.
    """
    gaining = gains(result, controlled)
    if not gaining:
        return [("", "no gain has an interval that excludes 0, so there is nothing to explain")]
    rows = {p: control_rows(controlled, result, p) for p in gaining}
    if len(gaining) > MANY:
        return [("", sentence) for sentence in _counted(rows)]
    found = []
    for policy in gaining:
        reason = controlled.no_counterpart.get(policy)
        of_policy = [
            *_of_policy(rows[policy], result, controlled),
            f"no SFT counterpart: {reason}" if reason else "",
            _best_of_n_sentence(metrics, result, policy),
            _noise_sentence(metrics, result, noise, policy),
        ]
        found += [(policy, sentence) for sentence in of_policy if sentence]
    return found


def headline(result: Result, controlled: Controlled) -> str:
    """One sentence on which gains are explained; empty without gains."""
    rows_of = {p: control_rows(controlled, result, p) for p in gains(result, controlled)}
    if not rows_of:
        return ""
    if len(rows_of) > MANY:
        return f"controls: {'; '.join(_counted(rows_of))}"
    by_words: dict[str, list[str]] = {}
    for policy, rows in rows_of.items():
        whole = [_named(row) for row in rows.values() if explanation(row) == "explained"]
        part = [_named(row) for row in rows.values() if explanation(row) == "partly"]
        words = [f"explained by {_and(whole)}"] if whole else []
        words += [f"partly explained by {_and(part)}"] if part else []
        by_words.setdefault(", ".join(words) or "not explained by any control", []).append(policy)
    return f"controls: {'; '.join(f'{_gain_of(policies)} {words}' for words, policies in by_words.items())}"


def _gain_of(policies: Sequence[str]) -> str:
    return f"the gain of {policies[0]} is" if len(policies) == 1 else f"the gains of {_and(policies)} are"


def _of_policy(rows: Mapping[str, Row], result: Result, controlled: Controlled) -> Iterator[str]:
    """One sentence per control that explains the gain or might, and one on all others."""
    for row in rows.values():
        if explanation(row) != "not":
            yield _control_sentence(row, result, controlled)
    rest = [row for row in rows.values() if explanation(row) == "not"]
    if rest and len(rest) == len(rows):
        yield f"the gain is not explained by any control: {', '.join(map(_with_share, rest))}"
    elif rest:
        yield f"not explained by {', '.join(map(_with_share, rest))}"


def _with_share(row: Row) -> str:
    """A control and how much it accounts for."""
    own = row["control"] == "prompt" and row["k"] == 0
    return f"{_named(row)} ({'the base scores best with the original one' if own else f'accounts for {_share(row)}'})"


def _control_sentence(row: Row, result: Result, controlled: Controlled) -> str:
    """On a control that explains the gain, partly explains it or leaves it undecided."""
    how, control = measure(row["metric"]), row["control"]
    points = " points" if how.percent else ""
    includes = "includes 0" if row["ci_low"] <= 0 <= row["ci_high"] else "excludes 0"
    if includes == "excludes 0" and explanation(row) == "explained":
        includes = "favours the control"
    left = f"{how.difference(row['difference'])} {how.difference_interval(row['ci_low'], row['ci_high'])}{points}"
    control_score = f"{how.number(row['control_value'])}{how.unit}"
    scores = f"{control_score}, the policy {how.number(row['value'])}{how.unit}"
    what = {
        "prompt": f"{_prompt(row, result, controlled) if control == 'prompt' else ''} the base scores {scores}",
        "blank": f"{_share(row)} remain when the image is blanked",
        "mean_of_n": f"the base's {row['k']} sampled answers average {scores}",
        "sft_on_best": f"{row['against']}, trained on the same lists with the same budget, scores {scores}",
    }[control]
    opening = {
        "explained": f"explained by {_named(row)}: {what}",
        "partly": f"partly explained by {_named(row)}, which accounts for {_share(row)}: {what}",
        "undecided": f"undecided for {_named(row)}, which accounts for {_share(row)}: {what}",
        "not": "",
    }[explanation(row)]
    if control == "blank" and explanation(row) == "explained":
        opening = f"also present without the image: {what}"
    rest = "the gain that depends on the image" if control == "blank" else "the paired difference"
    more = "; more questions are needed" if explanation(row) == "undecided" else ""
    return f"{opening}; {rest}, {left}, {includes}{more}"


def _prompt(row: Row, result: Result, controlled: Controlled) -> str:
    """The prompt of a row as part of a sentence."""
    prompt = " ".join(controlled.prompts[result.benchmark][row["k"]].split())
    return f"with prompt {row['k']} (\u201c{prompt}\u201d)" if row["k"] else "with the benchmark's prompt"


def _share(row: Row) -> str:
    """How much of the gain a control accounts for, as `1.0 of 6.0 points`."""
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


def _best_of_n_sentence(metrics: pl.DataFrame, result: Result, policy: str) -> str:
    """Whether the policy gives answers that its base model did not give, by the best of N."""
    row = best_of(metrics, result).get(policy)
    if row is None or verdict(row, row["metric"]) in ("few", "unknown"):
        return ""
    how, n = measure(row["metric"]), row["k"]
    gain = f"{how.difference(row['gain'])} {how.difference_interval(row['gain_ci_low'], row['gain_ci_high'])}"
    scores = f"{how.number(row['value'])}{how.unit}, base {how.number(row['base_value'])}{how.unit} ({gain})"
    what = {
        "better": "better than the base, so the policy gives answers that the base did not sample",
        "worse": "worse than the base, so training lost answers that the base samples",
        "same": f"not distinguishable: within {n} answers, training selected among those that the base already gives",
    }[verdict(row, row["metric"])]
    return f"best of {n} answers: {scores}; {what}"


def _noise_sentence(metrics: pl.DataFrame, result: Result, noise: Mapping[str, float], policy: str) -> str:
    """At which noise levels the gain persists; this does not show what explains it."""
    levels, found = noise_rows(metrics, result, noise)
    rows = [(s, row) for s, row in zip(levels, found.get(policy, []), strict=False) if row is not None and s]
    present = [f"{sigma:g}" for sigma, row in rows if verdict(row, result.primary) == "better"]
    absent = [f"{sigma:g}" for sigma, row in rows if verdict(row, result.primary) != "better"]
    if not rows:
        return ""
    if not present:
        return f"under noise of sigma {_and(absent)} the gain is not distinguishable from 0"
    return f"under noise the gain persists at sigma {_and(present)}" + (f" but not at {_and(absent)}" if absent else "")


def _counted(rows_of: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """How many gains each control explains, and how many are not explained by any."""
    found = []
    for control in CONTROLS:
        compared = {p: rows[control] for p, rows in rows_of.items() if control in rows}
        explained = [p for p, row in compared.items() if explanation(row) == "explained"]
        if compared:
            name = _named(next(iter(compared.values())))
            largest = f", the largest for {explained[0]}" if explained else ""
            found.append(f"{name} explains {len(explained)} of {len(compared)} gains{largest}")
    none = sum(not any(explanation(row) == "explained" for row in rows.values()) for rows in rows_of.values())
    return [*found, f"{none} of {len(rows_of)} gains are not explained by any control"]


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
