"""Benchmarks that report accuracy on all questions and on groups of questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perceptune.core.benchmarks.benchmark import (
    Answered,
    Benchmark,
    Judged,
    Measured,
    always,
    known_share,
    right,
    summed,
    unread,
)
from perceptune.core.rewards.metrics import Columns
from perceptune.core.rewards.reward import VLMEVALKIT

MAX_TOKENS = 2048
ACCURACY = "accuracy"
"""The group of all questions; its metric is the primary one."""


@dataclass(frozen=True)
class Group:
    """A subset of the questions whose accuracy is a metric."""

    label: str
    of: Callable[[Answered], bool] = always
    right: Callable[[Answered], float] = right
    """1.0 for a right answer, else 0.0."""
    failed: Callable[[Answered], bool] = unread


@dataclass(frozen=True)
class JudgedRule:
    """How an accuracy counts the judge's replies."""

    label: str
    accepts: Callable[[Answered], bool]
    """Whether an answer that the judge was asked about is right, given its verdict."""
    unasked: Callable[[Answered], float] = right
    """1.0 if an answer that needs no judge is right, else 0.0."""


def right_by_vlmevalkit(answered: Answered) -> float:
    """1.0 if VLMEvalKit's rules count the answer as right, else 0.0."""
    return answered.components.get("vlmevalkit", 0.0)


def unread_by_vlmevalkit(answered: Answered) -> bool:
    """Whether VLMEvalKit's rules found no answer."""
    return not answered.components.get("vlmevalkit_read", 0.0)


BY_VLMEVALKIT = Group(f"accuracy ({VLMEVALKIT})", right=right_by_vlmevalkit, failed=unread_by_vlmevalkit)
"""All questions under VLMEvalKit's rules, for rewards that return `with_vlmevalkit`."""


def vlmevalkit_variant(metrics: Mapping[str, Measured]) -> dict[str, dict[str, dict[str, Measured]]]:
    """The variant `vlmevalkit` of a benchmark: the same metrics, the primary one under VLMEvalKit's
    rules.
    """
    primary = "accuracy_vlmevalkit"
    return {"vlmevalkit": {"metrics": {primary: metrics[primary], **metrics}}}


def has(key: str, value: str) -> Callable[[Answered], bool]:
    """A predicate: the source column `key` equals `value`, or is a list that contains it."""

    def holds(answered: Answered) -> bool:
        found = answered.source.get(key)
        return value in found if isinstance(found, list) else found == value

    return holds


def group_columns(
    answers: Sequence[Answered], groups: Mapping[str, Group], units: Sequence[str]
) -> dict[str, np.ndarray]:
    """Per unit and group, the number of questions (`<name> questions`) and of right answers
    (`<name> right`).
    """
    columns = {}
    for name, group in groups.items():
        inside = [float(group.of(a)) for a in answers]
        columns[f"{name} questions"] = inside
        columns[f"{name} right"] = [i * group.right(a) for i, a in zip(inside, answers, strict=True)]
    return summed(units, columns)


def group_metrics(groups: Mapping[str, Group]) -> dict[str, Measured]:
    """The accuracy of each group by name, computed from the columns of `group_columns`."""
    return {
        name: Measured(
            known_share(f"{name} right", f"{name} questions"),
            group.label,
            of=group.of,
            failed=group.failed,
            needs="such questions",
        )
        for name, group in groups.items()
    }


def judged_columns(
    answers: Sequence[Answered], units: Sequence[str], judged: Judged, rules: Mapping[str, JudgedRule]
) -> dict[str, np.ndarray]:
    """Columns of `judged_metric`: the number of questions, of right answers under each rule
    (`<name> right`), and of answers whose verdict is missing (`unjudged`).
    """
    asked = [judged.asked(a) for a in answers]
    columns = {
        "judged questions": [1.0] * len(answers),
        "unjudged": [float(a.verdict is None and ask) for a, ask in zip(answers, asked, strict=True)],
    }
    for name, rule in rules.items():
        columns[f"{name} right"] = [
            float(a.verdict is not None and rule.accepts(a)) if ask else rule.unasked(a)
            for a, ask in zip(answers, asked, strict=True)
        ]
    return summed(units, columns)


def judged_metric(name: str, label: str) -> Measured:
    """The accuracy under the rule `name` of `judged_columns`; NaN if any verdict is missing."""

    def metric(columns: Columns) -> np.ndarray:
        share = known_share(f"{name} right", "judged questions")(columns)
        return np.where(columns["unjudged"].sum(axis=-1) > 0, np.nan, share)

    return Measured(metric, label, failed=lambda answered: answered.text is None, needs="a judge")


def accuracy_by_group(
    name: str,
    groups: Mapping[str, Group],
    *,
    unit: Callable[[Answered], str] = lambda answered: answered.example_id,
    reads: Sequence[str],
    prompt: str = "{question}",
    judged: Judged | None = None,
    judged_by: Mapping[str, JudgedRule] | None = None,
    components: Sequence[str] = ("accuracy",),
) -> Benchmark:
    """A benchmark of task `open` whose answers are read by the reward of the same name, which must
    return `components`.

    `unit` names the resampling unit of an answer. With a judge, `judged_by` declares the metrics that
    count its verdicts.
    """
    rules = judged_by or {}

    def columns(answers: Sequence[Answered]) -> Columns:
        units = [unit(a) for a in answers]
        found = group_columns(answers, groups, units)
        return {**found, **judged_columns(answers, units, judged, rules)} if judged else found

    metrics = group_metrics(groups)
    verdicts = {one: judged_metric(one, rule.label) for one, rule in rules.items()}
    metrics = {ACCURACY: metrics[ACCURACY], **verdicts, **metrics}
    return Benchmark(
        name=name,
        rewards={"open": name},
        components={"open": components},
        columns=columns,
        metrics=metrics,
        settings={"prompt": prompt, "max_tokens": MAX_TOKENS},
        reads={"open": reads},
        judged=judged,
        variants=vlmevalkit_variant(metrics) if BY_VLMEVALKIT in groups.values() else {},
    )
