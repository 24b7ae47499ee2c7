"""Noise rectangles, one of CPPO's information-removing views (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from perceptune.contracts.config import Share
from perceptune.core.views.view import Box, View, ViewParameters, check_range

if TYPE_CHECKING:
    from PIL.Image import Image


class RectanglesParameters(ViewParameters):
    count: Annotated[int, Field(ge=0)] = 50
    """Number of rectangles per image; they may overlap."""
    smallest: Share = 0.05
    """Smallest side of a rectangle, as a share of the image's."""
    largest: Share = 0.15
    """Largest side of a rectangle, as a share of the image's."""

    @model_validator(mode="after")
    def _is_a_range(self) -> RectanglesParameters:
        check_range(self, "smallest", "largest")
        return self


class Rectangles(View):
    name = "rectangles"
    Parameters = RectanglesParameters
    seeded = True

    def apply(
        self, images: Sequence[Image], parameters: RectanglesParameters, seed: int, box: Box | None
    ) -> list[Image]:
        """Each image with rectangles of uniform noise at random places.

        As in CPPO's code, sides are rounded down to whole pixels and noise values are 0 to 254.
        """
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(seed)
        covered = []
        for image in images:
            pixels = np.array(image)
            sides = np.array(pixels.shape[:2])
            for _ in range(parameters.count):
                shares = generator.uniform(parameters.smallest, parameters.largest, 2)
                height, width = np.maximum((shares * sides).astype(int), 1)
                top, left = (generator.integers(0, room + 1) for room in sides - (height, width))
                noise = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
                pixels[top : top + height, left : left + width] = noise
            covered.append(Pillow.fromarray(pixels))
        return covered

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """Share of the first image's pixels that have changed."""
        import numpy as np

        before, after = (np.asarray(picture) for picture in (images[0], shown[0]))
        return float((before != after).any(axis=2).mean())


VIEW = Rectangles()
