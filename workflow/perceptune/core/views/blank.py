"""The no-image condition: the prompt stays, the picture says nothing."""

from __future__ import annotations

from PIL import Image

GREY = (127, 127, 127)


def blank(images: list[Image.Image]) -> list[Image.Image]:
    """Uniform mid-grey images of the same sizes, so that the number of image tokens stays."""
    return [Image.new("RGB", image.size, GREY) for image in images]
