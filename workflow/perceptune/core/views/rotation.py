"""Random rotation, one of CPPO's information-preserving views (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    from PIL.Image import Image


class RotationParameters(ViewParameters):
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle in either direction."""


class Rotation(View):
    name = "rotation"
    Parameters = RotationParameters
    seeded = True

    def apply(self, images: Sequence[Image], parameters: RotationParameters, seed: int, box: Box | None) -> list[Image]:
        """Rotate each image about its centre by a uniform angle; nearest pixels, black outside the
        image, as torchvision's `RandomRotation` does by default.
        """
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(seed)
        angles = [generator.uniform(-parameters.degrees, parameters.degrees) for _ in images]
        return [image.rotate(angle, Pillow.Resampling.NEAREST) for image, angle in zip(images, angles, strict=True)]


VIEW = Rotation()
