"""Random crop: a small part of the image, enlarged; the corrupted image of mDPO (arXiv:2406.11839)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from perceptune.core.views.view import Box, View, ViewParameters, check_range

if TYPE_CHECKING:
    from PIL.Image import Image

Area = Annotated[float, Field(gt=0, le=1)]
RATIOS = (3 / 4, 4 / 3)
"""Range of the aspect ratio (width / height), as in torchvision's `RandomResizedCrop`."""


class RandomCropParameters(ViewParameters):
    smallest: Area = 0.01
    """Smallest area of the crop, as a share of the image's: 0 in mDPO's paper, 0.01 in its code."""
    largest: Area = 0.2
    """Largest area of the crop, as a share of the image's."""

    @model_validator(mode="after")
    def _is_a_range(self) -> RandomCropParameters:
        check_range(self, "smallest", "largest")
        return self


class RandomCrop(View):
    name = "random_crop"
    Parameters = RandomCropParameters
    seeded = True

    def apply(
        self, images: Sequence[Image], parameters: RandomCropParameters, seed: int, box: Box | None
    ) -> list[Image]:
        """A random crop of each image, resized (bilinear) to the image's size.

        The area is uniform between the two shares, the aspect ratio log-uniform in `RATIOS`. Sides
        are limited to the image's.
        """
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(seed)
        cropped = []
        for image in images:
            area = generator.uniform(parameters.smallest, parameters.largest) * image.width * image.height
            ratio = math.exp(generator.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
            sides = (math.sqrt(area * ratio), math.sqrt(area / ratio))
            width, height = (min(max(1, round(side)), whole) for side, whole in zip(sides, image.size, strict=True))
            left = int(generator.integers(0, image.width - width + 1))
            top = int(generator.integers(0, image.height - height + 1))
            # `box` of `resize` would blend in pixels around the crop
            crop = image.crop((left, top, left + width, top + height))
            cropped.append(crop.resize(image.size, Pillow.Resampling.BILINEAR))
        return cropped


VIEW = RandomCrop()
