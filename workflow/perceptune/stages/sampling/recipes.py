"""Views by name: from the config's blocks and the crops to what an example's pictures look like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perceptune.contracts.config import PLAIN_VIEWS, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.saliency import SALIENCY
from perceptune.core.views.apply import pictures_shown
from perceptune.core.views.patch_saliency import Saliency
from perceptune.core.views.view import Box, Recipe


class NoCropError(ValueError):
    """The example has no crop; the message says why."""


class NoSaliencyError(ValueError):
    """It is not known what stands out in the example's images; the message says why."""


def recipe_of(
    view: str,
    blocks: Mapping[str, ViewBlock],
    image_sha256: Sequence[str],
    box: Box | None = None,
    occasion: Sequence[str] = (),
    saliencies: Mapping[str, Saliency] | None = None,
) -> Recipe:
    """How one example is shown under the named view.

    Drawn by the images' digests, so it is the same for equal images; anew on another `occasion`, such as a round. `saliencies`
    has those that `Saliencies.for_view` finds.
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
    """One user turn: as many pictures as the recipe shows of so many, then the text."""
    content: list[dict[str, Any]] = [{"type": "image", "text": None}] * pictures_shown(recipe, images)
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def with_pictures(messages: Sequence[Mapping[str, Any]], recipe: Recipe, images: int) -> list[dict[str, Any]]:
    """The messages with as many pictures as the recipe shows of so many; those of the first turn come first."""
    shown = pictures_shown(recipe, images)
    adapted: list[dict[str, Any]] = []
    for message in messages:
        texts = [item for item in message["content"] if item["type"] != "image"]
        content = [{"type": "image", "text": None}] * shown + texts if not adapted else list(message["content"])
        adapted.append({**message, "content": content})
    return adapted


class Crops:
    """The crops of a dataset, per crop block."""

    def __init__(self, tables: Mapping[str, Path]) -> None:
        self._rows = {
            name: {row["example_id"]: row for row in read_table(path, CROPS).to_pylist()}
            for name, path in tables.items()
        }

    def box(self, crop: str, example_id: str) -> Box:
        """The crop of an example; `NoCropError` where there is none, or none that means anything."""
        row = self._rows[crop].get(example_id)
        if row is None:
            raise UserError(
                f"crop `{crop}` has no row of example `{example_id}`",
                "its attention block must cover the split and the tasks that are asked",
            )
        if row["box"] is None or row["flag"]:
            raise NoCropError(f"no crop: {row['reason'] or row['flag']}")
        return tuple(row["box"])

    def box_for(self, view: str, blocks: Mapping[str, ViewBlock], example_id: str) -> Box | None:
        """The crop that a view needs; None for the others."""
        op = None if view in PLAIN_VIEWS else blocks[view].type
        if op is None or not load("view", op).needs_box:
            return None
        return self.box(str(blocks[view].crop), example_id)


class Saliencies:
    """What stands out in the images of a dataset, per saliency block."""

    def __init__(self, tables: Mapping[str, Path]) -> None:
        self._tables = {name: read_table(path, SALIENCY) for name, path in tables.items()}
        self._places = {
            name: {example: place for place, example in enumerate(table["example_id"].to_pylist())}
            for name, table in self._tables.items()
        }

    def of(self, saliency: str, example_id: str) -> Saliency:
        """That of an example; `NoSaliencyError` where there is none."""
        place = self._places[saliency].get(example_id)
        if place is None:
            raise UserError(
                f"saliency `{saliency}` has no row of example `{example_id}`",
                "its block must cover the split and the tasks that are asked",
            )
        (row,) = self._tables[saliency].slice(place, 1).to_pylist()
        if row["saliency"] is None:
            raise NoSaliencyError(f"no saliency: {row['reason']}")
        rows, columns = row["grid"]
        return Saliency((rows, columns), row["saliency"])

    def for_view(self, view: str, blocks: Mapping[str, ViewBlock], example_id: str) -> dict[str, Saliency]:
        """Those that a view, or one of the views that it may be, needs, by the name of the block."""
        named = [] if view in PLAIN_VIEWS else [blocks[view], *(blocks[one] for one in blocks[view].choice)]
        return {one.saliency_map: self.of(one.saliency_map, example_id) for one in named if one.saliency_map}


def by_name(tables: Iterable[str]) -> dict[str, Path]:
    """The tables of blocks by the blocks' names, which are those of the files."""
    return {Path(table).stem: Path(table) for table in tables}
