"""I_deg of P2-DPO (arXiv:2606.03376): the image with the salient crop erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perceptune.core.views.view import Box, View, ViewParameters, clipped

if TYPE_CHECKING:
    from PIL.Image import Image


class DegradedParameters(ViewParameters):
    fill: Literal["mean", "grey", "black", "blur"] = "mean"
    """Fill of the box: the image's mean colour (as in the paper's code), mid-grey, black, or a
    strong blur of the box."""
    edge: Literal["exclusive", "inclusive"] = "exclusive"
    """`inclusive` erases one more pixel row and column, as in the paper's code."""


class Degraded(View):
    name = "degraded"
    Parameters = DegradedParameters
    needs_box = True

    def apply(self, images: Sequence[Image], parameters: DegradedParameters, seed: int, box: Box | None) -> list[Image]:
        """The first image with the box erased, the others unchanged."""
        assert box is not None
        image = images[0].copy()
        x1, y1, x2, y2 = clipped(box, image.size)
        if parameters.edge == "inclusive":
            x2, y2 = min(x2 + 1, image.width), min(y2 + 1, image.height)
        image.paste(_filling(image, parameters.fill, (x1, y1, x2, y2)), (x1, y1, x2, y2))
        return [image, *images[1:]]

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """Share of the first image's area that is erased."""
        assert box is not None
        x1, y1, x2, y2 = clipped(box, images[0].size)
        return (x2 - x1) * (y2 - y1) / (images[0].width * images[0].height)


def _filling(image: Image, fill: str, box: tuple[int, int, int, int]) -> Image | tuple[int, int, int]:
    if fill == "blur":
        from PIL import ImageFilter

        return image.crop(box).filter(ImageFilter.GaussianBlur(max(image.size) / 10))
    if fill == "mean":
        import numpy as np

        red, green, blue = np.asarray(image).reshape(-1, 3).mean(axis=0).astype(int).tolist()
        return red, green, blue
    return (0, 0, 0) if fill == "black" else (127, 127, 127)


VIEW = Degraded()
