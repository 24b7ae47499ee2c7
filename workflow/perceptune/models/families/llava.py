"""LLaVA-1.5 (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from perceptune.models.families.llava_like import LlavaLike

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import ProcessorMixin

    from perceptune.contracts.config import ModelBlock
    from perceptune.models.families.family import Family


class Llava(LlavaLike):
    """`fit`: how images become square, padded (as in LLaVA-1.5's training) or centre-cropped."""

    name = "llava"
    model_types = ("llava",)
    frame = "padded_square"
    feature_layer = -2
    squares_images = True

    def __init__(self, fit: str = "pad") -> None:
        self.fit = fit

    def of(self, model: ModelBlock) -> Family:
        """The family with the block's `image_fit`."""
        return Llava(model.image_fit)

    def prepare_image(self, image: Image.Image, processor: ProcessorMixin) -> Image.Image:
        """The image as a square: padded with the processor's mean colour, or centre-cropped.

        Cropping is what the processors of many checkpoints in Hugging Face format do; they leave
        squares unchanged.
        """
        if image.width == image.height:
            return image
        if self.fit == "crop":
            x1, y1, x2, y2 = self.covered(image.size)
            return image.crop((int(x1), int(y1), int(x2), int(y2)))
        from PIL import Image

        side = max(image.size)
        mean = processor.image_processor.image_mean
        square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """A square grid of patches per image."""
        height, width = prefix["pixel_values"].shape[-2:]
        patch = processor.patch_size
        return [(height // patch, width // patch)] * len(prefix["pixel_values"])

    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The square around the image, or the one at its centre."""
        side = max(size) if self.fit == "pad" else min(size)
        left, top = ((length - side) // 2 if self.fit == "crop" else -((side - length) // 2) for length in size)
        return float(left), float(top), float(left + side), float(top + side)


FAMILY = Llava()
