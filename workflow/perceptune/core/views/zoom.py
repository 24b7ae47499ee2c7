"""Random zoom crop, one of CPPO's information-removing views (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from perceptune.core.views.view import Box, View, ViewParameters, check_range

if TYPE_CHECKING:
    from PIL.Image import Image

Scale = Annotated[float, Field(gt=0, le=1)]


class ZoomParameters(ViewParameters):
    smallest: Scale = 0.6
    """Smallest side of the crop, as a share of the image's."""
    largest: Scale = 0.7
    """Largest side of the crop, as a share of the image's."""

    @model_validator(mode="after")
    def _is_a_range(self) -> ZoomParameters:
        check_range(self, "smallest", "largest")
        return self


class Zoom(View):
    name = "zoom"
    Parameters = ZoomParameters
    seeded = True

    def apply(self, images: Sequence[Image], parameters: ZoomParameters, seed: int, box: Box | None) -> list[Image]:
        """A random crop of each image, resized (bilinear) to the image's size.

        Sides are rounded down to whole pixels, as in CPPO's code.
        """
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(seed)
        zoomed = []
        for image in images:
            scale = generator.uniform(parameters.smallest, parameters.largest)
            width, height = (max(1, int(side * scale)) for side in image.size)
            left, top = (
                int(generator.integers(0, whole - part + 1))
                for whole, part in zip(image.size, (width, height), strict=True)
            )
            # `box` of `resize` would blend in pixels around the crop
            crop = image.crop((left, top, left + width, top + height))
            zoomed.append(crop.resize(image.size, Pillow.Resampling.BILINEAR))
        return zoomed


VIEW = Zoom()
