"""What a reward is given and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceptune.core.boxes import Frame


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
class Reward:
    """A reward, under the name that tasks of a reward block give."""

    name: str
    score: Callable[[Answers], Scores]


def right_or_wrong(found: Sequence[Any], right: Sequence[bool], unread: str) -> Scores:
    """Rewards 1 and 0, also as component `accuracy`; parsed: `answer`. Where nothing was found, `unread` says what was expected."""
    rewards = np.array(right, dtype=float)
    parsed = [None if answer is None else {"answer": answer} for answer in found]
    return Scores(rewards, parsed, {"accuracy": rewards}, [unread if p is None else None for p in parsed])
