"""Gaussian blur, an information-preserving view of CPPO's asynchronous code (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    from PIL.Image import Image


class BlurParameters(ViewParameters):
    radius: Annotated[int, Field(ge=1)] = 1
    """Kernel radius in pixels: the kernel has 2 x radius + 1 pixels per side."""
    sigma: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation in pixels."""


class Blur(View):
    name = "blur"
    Parameters = BlurParameters

    def apply(self, images: Sequence[Image], parameters: BlurParameters, seed: int, box: Box | None) -> list[Image]:
        """Every image blurred, with mirrored edges."""
        import numpy as np
        from PIL import Image as Pillow
        from scipy.ndimage import gaussian_filter

        blurred = []
        for image in images:
            pixels = np.asarray(image, dtype=np.float64)
            spread = (parameters.sigma, parameters.sigma, 0)
            smooth = gaussian_filter(pixels, spread, mode="mirror", radius=(parameters.radius, parameters.radius, 0))
            blurred.append(Pillow.fromarray(np.rint(smooth).astype(np.uint8)))
        return blurred


VIEW = Blur()
