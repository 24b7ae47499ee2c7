"""Images of examples, their boxes, and the pictures behind generated pairs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from PIL import Image

from perceptune.commands.inspect.contents import ancestors
from perceptune.commands.inspect.library import Library, row_of
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.report import gallery
from perceptune.report.gallery import Outline
from perceptune.report.pair_cards import Picture, pair_pictures

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


def scene(dataset: str, example: Mapping[str, Any], outlines: Sequence[Outline]) -> Markup:
    """The first image of an example with boxes; its description names them."""
    width, height = example["image_sizes"][0]
    truth = [Outline(tuple(example["box"]), "truth", "ground truth")] if example["box"] else []
    address = "image?" + urlencode({"dataset": dataset, "id": example["example_id"]})
    everything = [*truth, *outlines]
    return Markup(gallery.annotated(address, (width, height), everything, description(example, everything)))


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


def of_group(library: Library, path: Path, dataset: str, group_id: str) -> list[Picture]:
    """The pictures behind a group: the original image, the attention map, and every view.

    Raises `UserError` or `ValueError` if there are none.
    """
    return list(_of_group(library, path, dataset, group_id, path.stat().st_mtime_ns))


@lru_cache(8)
def _of_group(library: Library, path: Path, dataset: str, group_id: str, modified: int) -> tuple[Picture, ...]:
    group = library.group(path, group_id)
    example = library.example(dataset, group["example_id"], EXAMPLE)
    if example is None or not example["image_sha256"]:
        raise UserError("the example has no image, or is not in its table any more")
    made_from = ancestors(path)
    attention = row_of(made_from.get(ATTENTION.name), ATTENTION, group["example_id"])
    crop = row_of(made_from.get(CROPS.name), CROPS, group["example_id"])
    return tuple(pair_pictures(group, library.images(dataset, group["example_id"]), example, attention, crop))
