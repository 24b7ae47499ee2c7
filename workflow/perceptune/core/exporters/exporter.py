"""The interface of export formats: how a question with ranked responses is written and documented."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from perceptune.core.data.row_checks import MARK


@dataclass(frozen=True)
class Ranked:
    """One question, preceded by its images, with its responses, best first."""

    id: str
    question: str
    images: Sequence[Any]
    """File names relative to the export, or structs of bytes and path if the format embeds images."""
    answers: Sequence[tuple[str, float | None]]
    """Text and reward; the reward is None if only the order is known."""
    task: str
    split: str
    target: str | None = None
    box: Sequence[float] | None = None
    """x1, y1, x2, y2 in pixels of the first image."""

    @property
    def facts(self) -> dict[str, Any]:
        """Additional columns in perceptune's own format, which the other trainer does not use."""
        return {"id": self.id, "task": self.task, "split": self.split, "answer": self.target, "box": self.box}

    @property
    def scores(self) -> dict[str, float | None]:
        """The rewards of a pair as columns."""
        return {"score_chosen": self.answers[0][1], "score_rejected": self.answers[-1][1]}

    @property
    def marked(self) -> str:
        """The question after one `<image>` placeholder per image."""
        return MARK * len(self.images) + self.question

    @property
    def truth(self) -> str:
        """The ground truth as text; empty if there is none.

        It is the box as JSON for grounding or without a target, else the target. The target of a
        grounding example is the data set's own text: a name, or a box in other coordinates.
        """
        box = "" if self.box is None else json.dumps(list(self.box))
        return box if self.task == "grounding" or self.target is None else self.target

    @property
    def given(self) -> list[dict[str, Any]]:
        """The responses in the form of `answers_given`."""
        return [{"text": text, "reward": reward} for text, reward in self.answers]


FACTS = {
    "id": "id of the example, with the pair appended if there are several",
    "task": "perceptune's task of the question",
    "split": "split of the data set",
    "answer": "ground truth as written in the data set, null if there is none",
    "box": "ground-truth box in pixels of the image: x1, y1, x2, y2; null if there is none",
}
SCORES = {
    "score_chosen": "reward of the chosen response, null if only the order is known",
    "score_rejected": "reward of the rejected response, null if only the order is known",
}


@dataclass(frozen=True)
class Exporter:
    """An export format; `format` of an export block selects it by name."""

    name: str
    rows: Literal["pairs", "lists"]
    """Content of a row: a pair, or a question with all its responses."""
    file: str
    record: Callable[[Ranked], dict[str, Any]]
    fields: Mapping[str, str]
    """Column to its description."""
    usage: str
    """Loading instructions in Markdown; `{folder}` and `{name}` are the export's folder and name."""
    inside: bool = False
    """Whether images are embedded in the table instead of stored as files."""
    features: Callable[[], Any] | None = None
    """Column types of a Parquet file, for the `datasets` library."""
    beside: Callable[[str], Mapping[str, Any]] = field(default=lambda name: {})
    """Maps the export's name to additional JSON files, by file name."""


def pairs_of(one: Ranked, which: Literal["extremes", "all"]) -> Iterator[Ranked]:
    """Best and worst response (`extremes`), or all pairs with different rewards (`all`).

    Without rewards, the order decides. Responses with equal rewards or equal text never form a
    pair.
    """
    last = len(one.answers) - 1
    places = [(0, last)] if which == "extremes" else [(i, j) for i in range(last + 1) for j in range(i + 1, last + 1)]
    for i, j in places:
        (chosen, better), (rejected, worse) = one.answers[i], one.answers[j]
        if i == j or chosen == rejected or (better is not None and worse is not None and better <= worse):
            continue
        name = one.id if which == "extremes" else f"{one.id}/{i}-{j}"
        yield replace(one, id=name, answers=(one.answers[i], one.answers[j]))
