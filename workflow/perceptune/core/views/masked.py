"""Random patch mask of PAPO (arXiv:2507.06448) and, at 80 %, of CPPO (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    from PIL.Image import Image


class MaskedParameters(ViewParameters):
    cell: Annotated[int, Field(ge=1)] = 14
    """Side of a cell in pixels of the imported image, before any resize; the last row and column of
    cells may be partial."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Probability of each cell to become black, independently."""


class Masked(View):
    name = "masked"
    Parameters = MaskedParameters
    seeded = True

    def apply(self, images: Sequence[Image], parameters: MaskedParameters, seed: int, box: Box | None) -> list[Image]:
        """Every image with its own random mask."""
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(seed)
        masked = []
        for image in images:
            pixels = np.array(image)
            rows, columns = (-(-side // parameters.cell) for side in pixels.shape[:2])
            black = generator.random((rows, columns)) < parameters.share
            spread = black.repeat(parameters.cell, axis=0).repeat(parameters.cell, axis=1)
            pixels[spread[: pixels.shape[0], : pixels.shape[1]]] = 0
            masked.append(Pillow.fromarray(pixels))
        return masked

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """Share of the first image's pixels that have become black."""
        return newly_black(images[0], shown[0])


def newly_black(before: Image, after: Image) -> float:
    """Share of the pixels that are black in `after` but not in `before`."""
    import numpy as np

    seen, left = (np.asarray(picture).any(axis=2) for picture in (before, after))
    return float((seen & ~left).mean())


VIEW = Masked()
