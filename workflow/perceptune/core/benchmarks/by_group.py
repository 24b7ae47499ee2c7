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
)
from perceptune.core.rewards.metrics import Columns

MAX_TOKENS = 2048
ACCURACY = "accuracy"
"""The group of all questions; its metric is the primary one."""


@dataclass(frozen=True)
class Group:
    """A subset of the questions whose accuracy is a metric."""

    label: str
    of: Callable[[Answered], bool] = always


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
        columns[f"{name} right"] = [i * right(a) for i, a in zip(inside, answers, strict=True)]
    return summed(units, columns)


def group_metrics(groups: Mapping[str, Group]) -> dict[str, Measured]:
    """The accuracy of each group by name, computed from the columns of `group_columns`."""
    return {
        name: Measured(
            known_share(f"{name} right", f"{name} questions"), group.label, of=group.of, needs="such questions"
        )
        for name, group in groups.items()
    }


def judged_columns(
    answers: Sequence[Answered],
    units: Sequence[str],
    needs_judge: Callable[[Answered], bool],
    accepts: Callable[[Answered], bool],
) -> dict[str, np.ndarray]:
    """Columns of `judged_metric`.

    `judged right` uses the judge's verdict where `needs_judge` holds, and the rules elsewhere;
    `unjudged` counts the answers whose verdict is missing.
    """
    wanted = [needs_judge(a) for a in answers]
    accepted = [
        float(a.verdict is not None and accepts(a)) if w else right(a) for a, w in zip(answers, wanted, strict=True)
    ]
    missing = [float(w and a.verdict is None) for a, w in zip(answers, wanted, strict=True)]
    return summed(units, {"judged questions": [1.0] * len(answers), "judged right": accepted, "unjudged": missing})


def judged_metric(label: str) -> Measured:
    """The accuracy of `judged_columns`; NaN if any verdict is missing."""

    def metric(columns: Columns) -> np.ndarray:
        share = known_share("judged right", "judged questions")(columns)
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
    judged_label: str = "",
    accepts: Callable[[Answered], bool] = always,
) -> Benchmark:
    """A benchmark of task `open` whose answers are read by the reward of the same name.

    `unit` names the resampling unit of an answer. With a judge, the metric `accuracy_judged` counts
    the verdicts that `accepts` takes as right.
    """

    def columns(answers: Sequence[Answered]) -> Columns:
        units = [unit(a) for a in answers]
        found = group_columns(answers, groups, units)
        return {**found, **judged_columns(answers, units, judged.asked, accepts)} if judged else found

    metrics = group_metrics(groups)
    if judged:
        metrics = {ACCURACY: metrics[ACCURACY], "accuracy_judged": judged_metric(judged_label), **metrics}
    return Benchmark(
        name=name,
        rewards={"open": name},
        components={"open": ("accuracy",)},
        columns=columns,
        metrics=metrics,
        settings={"prompt": prompt, "max_tokens": MAX_TOKENS},
        reads={"open": reads},
        judged=judged,
    )
