"""Resolves named views: from config blocks and crops to the recipe for an example's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceptune.contracts.config import PLAIN_VIEWS, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import Rows, read_table
from perceptune.contracts.tables.places import Places
from perceptune.contracts.tables.saliency import SALIENCY
from perceptune.core.views.apply import pictures_shown
from perceptune.core.views.patch_saliency import Saliency
from perceptune.core.views.view import Box, Recipe


class NoCropError(ValueError):
    """The example has no crop; the message has the reason."""


class NoSaliencyError(ValueError):
    """The example has no saliency map; the message has the reason."""


def recipe_of(
    view: str,
    blocks: Mapping[str, ViewBlock],
    image_sha256: Sequence[str],
    box: Box | None = None,
    occasion: Sequence[str] = (),
    saliencies: Mapping[str, Saliency] | None = None,
) -> Recipe:
    """The recipe that renders one example under the named view.

    Random choices are seeded by the images' digests, so equal images get equal recipes; another
    `occasion`, such as a round, draws anew. `saliencies` has the maps that `Saliencies.for_view`
    returns.
    """
    if view in PLAIN_VIEWS:
        return Recipe(view)
    block = blocks[view]
    if block.type is None:
        drawn = derived_seed("one of", block.seed, *block.choice, *image_sha256, *occasion)
        return recipe_of(block.choice[drawn % len(block.choice)], blocks, image_sha256, box, occasion, saliencies)
    kind = load("view", block.type)
    settings = kind.Parameters.model_validate(block.parameters)
    if kind.needs_saliency:
        assert saliencies is not None
        parameters = kind.settled(settings, saliencies[str(block.saliency_map)])
    else:
        parameters = settings.model_dump(mode="json")
    seed = derived_seed("view", block.seed, block.type, *image_sha256, *occasion) if kind.seeded else 0
    return Recipe(block.type, parameters, seed, box if kind.needs_box else None)


def messages_for(question: str, recipe: Recipe, images: int) -> list[dict[str, Any]]:
    """One user turn: the images that the recipe renders from `images` images, then the text."""
    content: list[dict[str, Any]] = [{"type": "image", "text": None}] * pictures_shown(recipe, images)
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def with_pictures(messages: Sequence[Mapping[str, Any]], recipe: Recipe, images: int) -> list[dict[str, Any]]:
    """The messages with the images that the recipe renders from `images` images, in turn 1."""
    shown = pictures_shown(recipe, images)
    adapted: list[dict[str, Any]] = []
    for message in messages:
        texts = [item for item in message["content"] if item["type"] != "image"]
        content = [{"type": "image", "text": None}] * shown + texts if not adapted else list(message["content"])
        adapted.append({**message, "content": content})
    return adapted


class Crops:
    """The crops of a dataset, by crop block."""

    def __init__(self, tables: Mapping[str, Path]) -> None:
        self._tables = {name: Rows(path, CROPS, ["box", "flag", "reason"]) for name, path in tables.items()}
        self._places = {
            name: Places(read_table(path, CROPS, ["example_id"])["example_id"]) for name, path in tables.items()
        }

    def box(self, crop: str, example_id: str) -> Box:
        """The crop of an example.

        Raises `NoCropError` if it has no meaningful crop, `UserError` if its row is missing.
        """
        place = self._places[crop].find(example_id)
        if place is None:
            raise UserError(
                f"crop `{crop}` has no row for example `{example_id}`",
                "its attention block must cover the split and the tasks of all questions",
            )
        row = self._tables[crop][place]
        if row["box"] is None or row["flag"]:
            raise NoCropError(f"no crop: {row['reason'] or row['flag']}")
        return tuple(row["box"])

    def box_for(self, view: str, blocks: Mapping[str, ViewBlock], example_id: str) -> Box | None:
        """The crop that a view needs; None if it needs none."""
        op = None if view in PLAIN_VIEWS else blocks[view].type
        if op is None or not load("view", op).needs_box:
            return None
        return self.box(str(blocks[view].crop), example_id)


class Saliencies:
    """The saliency maps of a dataset, by block."""

    def __init__(self, tables: Mapping[str, Path]) -> None:
        self._tables = {n: Rows(path, SALIENCY, ["grid", "saliency", "reason"]) for n, path in tables.items()}
        self._places = {
            name: Places(read_table(path, SALIENCY, ["example_id"])["example_id"]) for name, path in tables.items()
        }

    def of(self, saliency: str, example_id: str) -> Saliency:
        """The saliency map of an example.

        Raises `NoSaliencyError` if it has none, `UserError` if its row is missing.
        """
        place = self._places[saliency].find(example_id)
        if place is None:
            raise UserError(
                f"saliency map `{saliency}` has no row for example `{example_id}`",
                "its block must cover the split and the tasks of all questions",
            )
        row = self._tables[saliency][place]
        if row["saliency"] is None:
            raise NoSaliencyError(f"no saliency map: {row['reason']}")
        rows, columns = row["grid"]
        return Saliency((rows, columns), row["saliency"])

    def for_view(self, view: str, blocks: Mapping[str, ViewBlock], example_id: str) -> dict[str, Saliency]:
        """The saliency maps that a view or one of its choices needs, by block."""
        named = [] if view in PLAIN_VIEWS else [blocks[view], *(blocks[one] for one in blocks[view].choice)]
        return {one.saliency_map: self.of(one.saliency_map, example_id) for one in named if one.saliency_map}
