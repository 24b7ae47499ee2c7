"""Noisy images: Gaussian pixel noise (P2-DPO), or VCD's forward diffusion (arXiv:2311.16922)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STEPS = 1000


class NoiseParameters(ViewParameters):
    kind: Literal["gaussian", "diffusion"] = "gaussian"
    """Gaussian noise on pixels, or `step` steps of VCD's diffusion on CLIP-normalised pixels."""
    sigma: Annotated[float, Field(ge=0)] = 0.1
    """`gaussian`: standard deviation, for pixel values in [0, 1]."""
    step: Annotated[int, Field(ge=0, lt=STEPS)] = 600
    """`diffusion`: 0-based index into the 1000 steps."""
    side: Annotated[int, Field(ge=1)] | None = None
    """Longer side in pixels to which the image is scaled before noise is added, so that the model's
    own downscaling does not average the noise away; null: the image's own size."""


class Noise(View):
    name = "noise"
    Parameters = NoiseParameters
    seeded = True

    def keeps_size(self, parameters: NoiseParameters) -> bool:
        """True unless images are scaled to a `side`."""
        return parameters.side is None

    def apply(self, images: Sequence[Image], parameters: NoiseParameters, seed: int, box: Box | None) -> list[Image]:
        """Every image with its own noise, rounded to 8 bits and clipped to black and white."""
        import numpy as np

        generator = np.random.default_rng(seed)
        return [_noisy(image, parameters, generator) for image in images]

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """Root mean square pixel change, for values in [0, 1]; below sigma because of clipping."""
        resized = images[0] if images[0].size == shown[0].size else images[0].resize(shown[0].size)
        return super().strength([resized], shown, box)


def _noisy(image: Image, parameters: NoiseParameters, generator: object) -> Image:
    import numpy as np
    from PIL import Image as Pillow

    assert isinstance(generator, np.random.Generator)
    if parameters.side is not None:
        scale = parameters.side / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    pixels = np.asarray(image, dtype=np.float64) / 255
    if parameters.kind == "gaussian":
        pixels = pixels + parameters.sigma * generator.standard_normal(pixels.shape)
    else:
        kept, spread = diffusion(parameters.step)
        mean, std = np.array(CLIP_MEAN), np.array(CLIP_STD)
        noisy = kept * (pixels - mean) / std + spread * generator.standard_normal(pixels.shape)
        pixels = noisy * std + mean
    return Pillow.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def diffusion(step: int) -> tuple[float, float]:
    """(sqrt(alpha-bar), sigma) of the 0-based `step`, where x = sqrt(alpha-bar) x_0 + sigma noise.

    alpha-bar is the product of 1 - beta_t over t = 0, ..., step, with
    beta_t = sigmoid(linspace(-6, 6, 1000)) (0.005 - 1e-5) + 1e-5.
    """
    kept = 1.0
    for t in range(step + 1):
        beta = (0.005 - 1e-5) / (1 + math.exp(6 - 12 * t / (STEPS - 1))) + 1e-5
        kept *= 1 - beta
    return math.sqrt(kept), math.sqrt(1 - kept)


VIEW = Noise()
