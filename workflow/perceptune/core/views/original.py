"""The images as they are."""

from __future__ import annotations

from PIL.Image import Image


def original(images: list[Image]) -> list[Image]:
    """The images unchanged."""
    return images
