"""Leaves out lists that a model cannot encode, before its weights are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import ProcessorMixin

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.progress import tell
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import RankedList, Shown
from perceptune.models.coordinates import framed
from perceptune.models.families.family import Family, family_of
from perceptune.models.loading import load_processor
from perceptune.runtime.distributed import first
from perceptune.stages.data.examples import Examples

Sizes = tuple[tuple[int, int], ...]
"""Width and height of each image of an example, in pixels."""


class Prompts:
    """Lengths of prompts without pixels: images of the same sizes have as many tokens."""

    def __init__(self, model: ModelBlock) -> None:
        self.model = model
        self.family: Family = family_of(model)
        self.processor: ProcessorMixin = load_processor(model)
        self._image_tokens: dict[tuple[str, Sizes], int] = {}

    def length(self, view: Shown, sizes: Sizes) -> int:
        """Tokens of the prompt of an example with images of these sizes under a view.

        Raises `ValueError` if it cannot be encoded.
        """
        tokens = self.family.prompt_ids(self.processor, view.messages)
        return len(tokens) + self.images(view.recipe, sizes)

    def images(self, recipe: Recipe, sizes: Sizes) -> int:
        """Tokens that images of these sizes add to their placeholders.

        Raises `ValueError` if they cannot be encoded.
        """
        operation = load("view", recipe.op)
        kept = operation.keeps_size(operation.Parameters.model_validate(recipe.parameters))
        key = "" if kept else recipe.text(), sizes
        if key not in self._image_tokens:
            pictures = _blank(sizes) if kept else shown(recipe, _blank(sizes))
            self._image_tokens[key] = self.family.image_tokens(self.processor, pictures)
        return self._image_tokens[key]

    def ground_truth(self, example: Mapping[str, Any], prompt: int) -> list[int]:
        """Token ids of an example's ground truth after a prompt of `prompt` tokens.

        Raises `ValueError` if it cannot be learnt: it is missing, it contains a reserved token, or
        it does not fit into `max_model_len`.
        """
        text = self.family.ground_truth(*framed(example, self.model))
        return self.family.learnt_answer(self.processor, text, self.model.max_model_len - prompt, "the ground truth")


def _blank(sizes: Sizes) -> list[Image.Image]:
    return [Image.new("RGB", size) for size in sizes]


def encodable(lists: Sequence[RankedList], prompts: Prompts) -> list[RankedList]:
    """The lists whose prompts can be encoded under all of their views; prints what is left out.

    Raises `UserError` if there are lists, but none of them can be encoded.
    """
    reasons: dict[str, str] = {}
    for one in lists:
        try:
            for view in one.views.values():
                prompts.length(view, one.sizes)
        except ValueError as error:
            reasons[one.group_id] = str(error)
    return _without(lists, reasons, "can be encoded")


def ground_truth_lists(
    lists: Sequence[RankedList], preferences: Path, examples: Path, view: str, prompts: Prompts
) -> list[RankedList]:
    """The lists with the ground truth, in the model's notation, as their only response.

    Its reward is 1. Lists whose ground truth cannot be learnt (see `Prompts.ground_truth`) after the
    prompt under `view` are left out. Raises `UserError` if none is left.
    """
    table = read_table(preferences, PREFERENCES).select(["group_id", "example_id"]).to_pylist()
    example_of = {row["group_id"]: row["example_id"] for row in table}
    truths = Examples(examples).rows([example_of[one.group_id] for one in lists])
    made, reasons = [], {}
    for one in lists:
        try:
            prompt = prompts.length(one.views[view], one.sizes)
            tokens = prompts.ground_truth(truths[example_of[one.group_id]], prompt)
            made.append(replace(one, responses=[tokens], rewards=[1.0], reference=None))
        except ValueError as error:
            reasons[one.group_id] = str(error)
    _without(lists, reasons, "have a ground truth to learn from")
    return made


def _without(lists: Sequence[RankedList], reasons: Mapping[str, str], what: str) -> list[RankedList]:
    """The lists without those that have a reason, which is printed. Raises `UserError` if none is left."""
    counts = Counter(reasons.values())
    dropped = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items()))
    if reasons and len(reasons) == len(lists):
        raise UserError(f"none of {len(lists)} lists {what}: {dropped}")
    if reasons and first():
        for name, reason in _some(reasons.items()):
            print(f"left out: list `{name}`: {reason}")
        tell(f"{len(lists) - len(reasons)} of {len(lists)} lists {what}; dropped: {dropped}")
    return [one for one in lists if one.group_id not in reasons]


def _some(reasons: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """The first lists of each reason."""
    seen: Counter[str] = Counter()
    for name, reason in reasons:
        seen[reason] += 1
        if seen[reason] <= SHOWN:
            yield name, reason
