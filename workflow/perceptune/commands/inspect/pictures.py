"""Images of examples, their boxes, and the pictures behind generated pairs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from PIL import Image

from perceptune.commands.inspect.contents import Stamp, ancestors, stamp
from perceptune.commands.inspect.library import Library, row_of
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.report import gallery
from perceptune.report.gallery import Outline
from perceptune.report.pair_cards import pair_pictures

LONGEST_SIDE = 1600
"""Most pixels of a side; larger images are shown smaller."""
PNG_PIXELS = 2**18
"""Images with more pixels are sent as JPEG."""
SMALL = 96
"""Side of the square into which small images fit."""
EXAMPLE = ("example_id", "task", "question", "target", "box", "image_sha256", "image_sizes", "split", "source")
"""Columns of an example that pages show."""


def encoded(image: Image.Image, longest: int = LONGEST_SIDE) -> tuple[bytes, str]:
    """The image as a PNG or JPEG file of at most `longest` pixels a side, and its media type."""
    shown = image.copy()
    shown.thumbnail((longest, longest))
    kind = "PNG" if shown.width * shown.height <= PNG_PIXELS else "JPEG"
    buffer = io.BytesIO()
    shown.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue(), f"image/{kind.lower()}"


@dataclass(frozen=True)
class Sent:
    """One of the pictures behind a group, as a file."""

    name: str
    size: tuple[int, int]
    """Of the picture, in whose pixels the boxes are; that of the file can be smaller."""
    outlines: Sequence[Outline]
    caption: str
    data: bytes
    kind: str
    """Media type."""


def scene(dataset: str, example: Mapping[str, Any], outlines: Sequence[Outline]) -> Markup:
    """The first image of an example with boxes; its description names them."""
    width, height = example["image_sizes"][0]
    truth = [Outline(tuple(example["box"]), "truth", "ground truth")] if example["box"] else []
    address = "image?" + urlencode({"dataset": dataset, "id": example["example_id"]})
    everything = [*truth, *outlines]
    return Markup(gallery.annotated(address, (width, height), everything, description(example, everything)))


def more(dataset: str, example: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The addresses of an example's images after the first, with their descriptions."""
    count = len(example["image_sha256"])
    return [
        (
            "image?" + urlencode({"dataset": dataset, "id": example["example_id"], "number": i}),
            f"image {i + 1} of {count}",
        )
        for i in range(1, count)
    ]


def description(example: Mapping[str, Any], outlines: Sequence[Outline]) -> str:
    """What an image with boxes shows, for those who cannot see it."""
    boxes = "; ".join(f"{o.label}: {', '.join(f'{edge:.0f}' for edge in o.box)}" for o in outlines)
    return f"Image of the question {gallery.visible(example['question'], 200)!r} with {boxes or 'no boxes'}"


def problem_of(library: Library, dataset: str, example: Mapping[str, Any]) -> str | None:
    """Why the first image of an example cannot be shown; None if it can."""
    if not example["image_sha256"]:
        return "the example has no image"
    try:
        library.image(dataset, example["example_id"], 0)
    except ValueError as error:
        return gallery.visible(str(error), 300)
    return None


def of_group(library: Library, path: Path, dataset: str, group_id: str) -> list[Sent]:
    """The pictures behind a group: the original image, the attention map, and every view.

    Raises `UserError` or `ValueError` if there are none.
    """
    return list(_of_group(library, stamp(path), dataset, group_id))


@lru_cache(8)
def _of_group(library: Library, table: Stamp, dataset: str, group_id: str) -> tuple[Sent, ...]:
    group = library.group(table.path, group_id)
    example = library.example(dataset, group["example_id"], EXAMPLE)
    if example is None or not example["image_sha256"]:
        raise UserError("the example has no image, or is not in its table any more")
    made_from = ancestors(table.path)
    attention = row_of(made_from.get(ATTENTION.name), ATTENTION, group["example_id"])
    crop = row_of(made_from.get(CROPS.name), CROPS, group["example_id"])
    found = pair_pictures(group, library.images(dataset, group["example_id"]), example, attention, crop)
    return tuple(Sent(one.name, one.image.size, one.outlines, one.caption, *encoded(one.image)) for one in found)


def as_asked(library: Library, dataset: str, example_id: str, recipe: str) -> tuple[tuple[bytes, str], ...]:
    """The images of an example under a view, as files with their media types.

    Raises `UserError` or `ValueError` if the view cannot be applied.
    """
    return _as_asked(library, stamp(library.example_path(dataset)), dataset, example_id, recipe)


@lru_cache(8)
def _as_asked(
    library: Library, examples: Stamp, dataset: str, example_id: str, recipe: str
) -> tuple[tuple[bytes, str], ...]:
    return tuple(encoded(image) for image in shown(Recipe.read(recipe), library.images(dataset, example_id)))
