"""Motion blur along a straight line, as in figure 7 of P2-DPO (arXiv:2606.03376)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


class MotionBlurParameters(ViewParameters):
    length: Annotated[int, Field(ge=1, le=255)] = 15
    """Length of the movement in pixels of the image; 1 leaves the image as it is. P2-DPO does not
    state it."""
    angle: float = 0.0
    """Direction in degrees: 0 is horizontal, 90 vertical, 45 from bottom left to top right."""


class MotionBlur(View):
    name = "motion_blur"
    Parameters = MotionBlurParameters

    def apply(
        self, images: Sequence[Image], parameters: MotionBlurParameters, seed: int, box: Box | None
    ) -> list[Image]:
        """Every image blurred along the line, with mirrored edges."""
        import numpy as np
        from PIL import Image as Pillow
        from scipy.ndimage import convolve

        kernel = line_kernel(parameters.length, parameters.angle)[..., None]
        blurred = []
        for image in images:
            smooth = convolve(np.asarray(image, dtype=np.float64), kernel, mode="mirror")
            blurred.append(Pillow.fromarray(np.rint(smooth.clip(0, 255)).astype(np.uint8)))
        return blurred


def line_kernel(length: int, angle: float) -> np.ndarray:
    """Weights of a line through the centre, float64, square with an odd side; their sum is 1.

    The line has `length` points one pixel apart, each shared by its four neighbours in proportion
    to their nearness (bilinear).
    """
    import numpy as np

    reach = math.ceil((length - 1) / 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    # rounded, so that 90 degrees is exactly vertical
    step = (round(-math.sin(math.radians(angle)), 12), round(math.cos(math.radians(angle)), 12))
    for number in range(length):
        y, x = (reach + (number - (length - 1) / 2) * part for part in step)
        top, left = math.floor(y), math.floor(x)
        for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
                if down * across:
                    kernel[row, column] += down * across / length
    return kernel


VIEW = MotionBlur()
