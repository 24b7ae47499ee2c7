"""What a reward is given and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.core.answers.boxes import Frame
from perceptune.core.rewards.metrics import DeclaredMetric, mean


@dataclass(frozen=True)
class Answers:
    """n answers with their ground truth, column by column."""

    texts: Sequence[str]
    """The model's answers."""
    targets: Sequence[str | None]
    """Ground truth as text."""
    boxes: np.ndarray
    """Ground-truth boxes in pixels of the image, shape (n, 4); NaN where the task has none."""
    sizes: np.ndarray
    """Width and height of the image in pixels, shape (n, 2)."""
    frame: Frame
    """What the numbers of the model's boxes mean."""
    resized: np.ndarray | None = None
    """Width and height after the processor's resize, shape (n, 2), for frame `resized_pixels`."""
    sources: Sequence[Mapping[str, Any]] = ()
    """The examples' other columns, as their importer gave them."""
    resources: Path | None = None
    """Folder with language resources, for rewards that need them."""

    def each_source(self) -> Sequence[Mapping[str, Any]]:
        """The sources, one per answer; empty ones where none are given."""
        return self.sources or [{}] * len(self.texts)


@dataclass(frozen=True)
class Scores:
    """n verdicts, column by column."""

    rewards: np.ndarray
    """In [0, 1], shape (n,); 0 for an answer that cannot be parsed."""
    parsed: Sequence[Any]
    """What was read from each answer, as JSON values; None where nothing was."""
    components: dict[str, np.ndarray]
    """Named numbers, shape (n,) each, that metrics are made of."""
    reasons: Sequence[str | None]
    """Why an answer could not be parsed."""

    def parsed_json(self) -> list[str | None]:
        """`parsed` as the table stores it."""
        return [None if p is None else json.dumps(p) for p in self.parsed]


@dataclass(frozen=True)
class RewardMetric(DeclaredMetric):
    """A metric of the columns that a reward's components make; shares are in [0, 1]."""

    component: str | None = None
    """Component whose values `of_one` turns into the metric of single answers, for their mean and
    the best of k; None where the metric says nothing of a single answer."""
    of_one: Callable[[np.ndarray], np.ndarray] = np.asarray
    """Takes and gives an array of any shape."""
    only_with: str | None = None
    """Component without which the metric is left out, one of the reward's `optional` ones."""


@dataclass(frozen=True)
class Reward:
    """A reward, under the name that tasks of a reward block give.

    Raises `ValueError` where the declaration is incomplete.
    """

    name: str
    summary: str
    """One line: when an answer is good."""
    score: Callable[[Answers], Scores]
    components: Sequence[str]
    """The components that `score` gives."""
    metrics: Mapping[str, RewardMetric]
    """Name to metric, the primary one first. A name means the same wherever it is declared."""
    optional: Sequence[str] = ()
    """Further components, which `score` gives under some settings only."""

    def __post_init__(self) -> None:
        if not self.summary.strip() or "\n" in self.summary:
            raise ValueError("`summary` is empty or has several lines, expected one line")
        if not self.components:
            raise ValueError("`components` is empty, expected the names of what `score` gives")
        if not self.metrics:
            raise ValueError("`metrics` is empty, expected at least one metric, the primary one first")
        for name, declared in self.metrics.items():
            self._check(name, declared)

    def _check(self, name: str, declared: RewardMetric) -> None:
        """Applies a metric to columns of zeros, which tells what it reads and what shape it gives."""
        if not isinstance(declared, RewardMetric) or not callable(declared.metric):
            raise ValueError(f"metric `{name}` is no `RewardMetric` with a function of columns")
        known = (*self.components, *self.optional)
        used = [name for name in (declared.component, declared.only_with) if name is not None]
        if unknown := [component for component in used if component not in known]:
            raise ValueError(f"metric `{name}` has unknown component `{unknown[0]}`, expected one of {_listed(known)}")
        if declared.only_with in self.components:
            raise ValueError(f"metric `{name}`: `only_with` is `{declared.only_with}`, expected one of `optional`")
        try:
            shape = np.shape(declared.metric({component: np.zeros((2, 3)) for component in known}))
        except KeyError as missing:
            raise ValueError(
                f"metric `{name}` reads unknown component {missing}, expected one of {_listed(known)}"
            ) from None
        if shape != (2,):
            raise ValueError(f"metric `{name}` gives shape {shape} for columns of shape (2, 3), expected (2,)")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


ACCURACY_METRICS: dict[str, RewardMetric] = {
    "accuracy": RewardMetric(mean("accuracy"), "accuracy", component="accuracy")
}
"""The metrics of `right_or_wrong`."""


def right_or_wrong(found: Sequence[Any], right: Sequence[bool], unread: str) -> Scores:
    """Rewards 1 and 0, also as component `accuracy`; parsed: `answer`. Where nothing was found, `unread` says what was expected."""
    rewards = np.array(right, dtype=float)
    parsed = [None if answer is None else {"answer": answer} for answer in found]
    return Scores(rewards, parsed, {"accuracy": rewards}, [unread if p is None else None for p in parsed])
