"""Colour jitter, one of CPPO's information-preserving views (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from perceptune.core.views.view import Box, View, ViewParameters, check_range

if TYPE_CHECKING:
    from PIL.Image import Image

Factor = Annotated[float, Field(ge=0)]


class JitterParameters(ViewParameters):
    brightness_low: Factor = 0.2
    """Smallest brightness factor; a factor of 1 changes nothing."""
    brightness_high: Factor = 1.3
    """Largest brightness factor."""
    contrast_low: Factor = 0.2
    """Smallest contrast factor."""
    contrast_high: Factor = 1.8
    """Largest contrast factor."""
    saturation_low: Factor = 0.2
    """Smallest saturation factor."""
    saturation_high: Factor = 1.8
    """Largest saturation factor."""

    @model_validator(mode="after")
    def _are_ranges(self) -> JitterParameters:
        for factor in ("brightness", "contrast", "saturation"):
            check_range(self, f"{factor}_low", f"{factor}_high")
        return self


class Jitter(View):
    name = "jitter"
    Parameters = JitterParameters
    seeded = True

    def apply(self, images: Sequence[Image], parameters: JitterParameters, seed: int, box: Box | None) -> list[Image]:
        """Scale brightness, contrast and saturation by uniform factors, in a random order."""
        import numpy as np
        from PIL import ImageEnhance

        kinds = (
            (ImageEnhance.Brightness, parameters.brightness_low, parameters.brightness_high),
            (ImageEnhance.Contrast, parameters.contrast_low, parameters.contrast_high),
            (ImageEnhance.Color, parameters.saturation_low, parameters.saturation_high),
        )
        generator = np.random.default_rng(seed)
        changed = []
        for image in images:
            factors = [generator.uniform(low, high) for _, low, high in kinds]
            jittered = image
            for kind in generator.permutation(len(kinds)):
                jittered = kinds[kind][0](jittered).enhance(factors[kind])
            changed.append(jittered)
        return changed


VIEW = Jitter()
