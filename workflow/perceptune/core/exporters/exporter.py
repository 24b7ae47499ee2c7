"""What an export format declares: how a question with ranked answers is written, and what its readers should know."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from perceptune.core.data.conversations import MARK


@dataclass(frozen=True)
class Ranked:
    """One question with its pictures before it and its answers, best first."""

    id: str
    question: str
    images: Sequence[Any]
    """File names relative to the export, or structs of bytes and path for formats that hold pictures in their table."""
    answers: Sequence[tuple[str, float | None]]
    """Text and reward; null rewards where only the order is known."""
    task: str
    split: str
    target: str | None = None
    box: Sequence[float] | None = None
    """x1, y1, x2, y2 in pixels of the first image."""

    @property
    def facts(self) -> dict[str, Any]:
        """Columns that the format itself has no use for, in our own words."""
        return {"id": self.id, "task": self.task, "split": self.split, "answer": self.target, "box": self.box}

    @property
    def scores(self) -> dict[str, float | None]:
        """The rewards of a pair as columns."""
        return {"score_chosen": self.answers[0][1], "score_rejected": self.answers[-1][1]}

    @property
    def marked(self) -> str:
        """The question behind one mark per picture."""
        return MARK * len(self.images) + self.question

    @property
    def truth(self) -> str:
        """The true box as JSON where the answer is a place or nothing else is known, or the true answer, or nothing.

        The target of a place is the data set's own text, which may be a name, or a box of another frame.
        """
        place = "" if self.box is None else json.dumps(list(self.box))
        return place if self.task == "grounding" or self.target is None else self.target

    @property
    def given(self) -> list[dict[str, Any]]:
        """The answers as `answers_given` has them."""
        return [{"text": text, "reward": reward} for text, reward in self.answers]


FACTS = {
    "id": "the example, and which pair of it where there are several",
    "task": "perceptune's task of the question",
    "split": "split of the data set that it came from",
    "answer": "the true answer in the data set's own words and numbers, null where there is none",
    "box": "the true box in pixels of the image: x1, y1, x2, y2; null where there is none",
}
SCORES = {
    "score_chosen": "reward of the chosen answer, null where only the order is known",
    "score_rejected": "reward of the rejected one",
}


@dataclass(frozen=True)
class Exporter:
    """A format, under the name that `format` of an export block gives."""

    name: str
    rows: Literal["pairs", "lists"]
    """A row is a pair, or a question with all its answers."""
    file: str
    record: Callable[[Ranked], dict[str, Any]]
    fields: Mapping[str, str]
    """Column to its meaning."""
    usage: str
    """How to load it, Markdown; `{folder}` and `{name}` stand for folder and name of the export."""
    inside: bool = False
    """Pictures are in the table, not beside it."""
    features: Callable[[], Any] | None = None
    """Types of the columns for the `datasets` library, of Parquet."""
    beside: Callable[[str], Mapping[str, Any]] = field(default=lambda name: {})
    """JSON files that go with it, by name, given the name of the export."""


def pairs_of(one: Ranked, which: Literal["extremes", "all"]) -> Iterator[Ranked]:
    """The best answer and the worst, or every two answers of which one is better; none of answers that are all as good.

    Two answers of which only the order is known differ. Those of one text never make a pair.
    """
    last = len(one.answers) - 1
    places = [(0, last)] if which == "extremes" else [(i, j) for i in range(last + 1) for j in range(i + 1, last + 1)]
    for i, j in places:
        (chosen, better), (rejected, worse) = one.answers[i], one.answers[j]
        if i == j or chosen == rejected or (better is not None and worse is not None and better <= worse):
            continue
        name = one.id if which == "extremes" else f"{one.id}/{i}-{j}"
        yield replace(one, id=name, answers=(one.answers[i], one.answers[j]))
