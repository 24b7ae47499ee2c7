"""Leaves out lists that a model cannot encode, before its weights are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.progress import tell
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import Encoder, Looks, PartEncoder, Shown, all_under
from perceptune.models.coordinates import framed
from perceptune.models.families.family import Family, check_text, family_of
from perceptune.models.loading import load_processor, outline
from perceptune.runtime.distributed import first

Sizes = tuple[tuple[int, int], ...]
"""Width and height of each image of an example, in pixels."""


class Prompts:
    """Lengths of prompts without pixels: images of the same sizes have as many tokens.

    In another process, it loads the processor again.
    """

    def __init__(self, model: ModelBlock, separate: bool = False) -> None:
        """`separate`: whether every response is encoded in a row of its own."""
        self.model, self.separate = model, separate
        self.family: Family = family_of(model)
        self.processor: ProcessorMixin = load_processor(model)
        self._image_tokens: dict[Sizes, int] = {}

    def __reduce__(self) -> tuple[type[Prompts], tuple[ModelBlock, bool]]:
        return Prompts, (self.model, self.separate)

    def encoder(self, looks: Looks, budget: int) -> Encoder:
        """An encoder for the model, whose weights are not loaded."""
        dtype = getattr(torch, self.model.dtype)
        return Encoder(self.family, self.processor, outline(self.model), looks, budget, dtype, self.separate)

    def part_encoder(self, views: Sequence[str], budget: int) -> PartEncoder:
        """The same for a round, under each of these views."""
        return PartEncoder(self.encoder(all_under(views[0]), budget), views)

    def length(self, view: Shown, sizes: Sizes) -> int:
        """Tokens of the prompt of an example with images of these sizes under a view.

        Raises `ValueError` if it cannot be encoded.
        """
        tokens = self.family.prompt_ids(self.processor, view.messages)
        return len(tokens) + self.images(view.recipe, sizes)

    @cached_property
    def reserved(self) -> dict[str, str]:
        """The tokens that no question may contain, see `Family.reserved`."""
        return self.family.reserved(self.processor)

    def check(self, view: Shown, sizes: Sizes) -> None:
        """Raises `ValueError` as `length` does, but without the tokenizer."""
        for message in view.messages:
            for item in message["content"]:
                if item["type"] != "image":
                    check_text(item["text"], self.reserved, "the question")
        self.images(view.recipe, sizes)

    def images(self, recipe: Recipe, sizes: Sizes) -> int:
        """Tokens that images of these sizes add to their placeholders.

        Raises `ValueError` if they cannot be encoded.
        """
        operation = load("view", recipe.op)
        kept = operation.keeps_size(operation.Parameters.model_validate(recipe.parameters))
        if not kept:
            return self.family.image_tokens(self.processor, shown(recipe, _blank(sizes)))
        return self.unchanged_images(sizes)

    def unchanged_images(self, sizes: Sizes) -> int:
        """The same for a view that keeps the sizes of images."""
        if sizes not in self._image_tokens:
            self._image_tokens[sizes] = self.family.image_tokens(self.processor, _blank(sizes))
        return self._image_tokens[sizes]

    def ground_truth(self, example: Mapping[str, Any], prompt: int) -> list[int]:
        """Token ids of an example's ground truth after a prompt of `prompt` tokens.

        Raises `ValueError` if it cannot be learnt: it is missing, it contains a reserved token, or
        it does not fit into `max_model_len`.
        """
        text = self.family.ground_truth(*framed(example, self.model))
        return self.family.learnt_answer(self.processor, text, self.model.max_model_len - prompt, "the ground truth")


def _blank(sizes: Sizes) -> list[Image.Image]:
    return [Image.new("RGB", size) for size in sizes]


def left_out(reasons: Mapping[str, str], lists: int, what: str) -> None:
    """Prints the names and the reasons of lists that are left out, of `lists` in total.

    Raises `UserError` if none is left.
    """
    counts = Counter(reasons.values())
    dropped = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items()))
    if reasons and len(reasons) == lists:
        raise UserError(f"none of {lists} lists {what}: {dropped}")
    if reasons and first():
        for name, reason in _some(reasons.items()):
            print(f"left out: list `{name}`: {reason}")
        tell(f"{lists - len(reasons)} of {lists} lists {what}; dropped: {dropped}")


def _some(reasons: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """The first lists of each reason."""
    seen: Counter[str] = Counter()
    for name, reason in reasons:
        seen[reason] += 1
        if seen[reason] <= SHOWN:
            yield name, reason
