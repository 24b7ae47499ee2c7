"""LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from perceptune.models.families.llava_like import AnyResolution

if TYPE_CHECKING:
    import torch
    from transformers import ProcessorMixin


class LlavaOnevision(AnyResolution):
    """Boxes as in LLaVA-NeXT.

    vLLM has `anyres_max_9` built in (the tokens of at most nine tiles), which all published models
    use.
    """

    name = "llava_onevision"
    model_types = ("llava_onevision",)
    frame = "padded_square"

    def patch_size(self, processor: ProcessorMixin, height: int) -> int:
        """The processor knows only the number of patches."""
        return height // round(processor.num_image_tokens**0.5)

    def model_inputs(self, prefixes: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Marks each image as its prompt's only one: transformers, unlike vLLM, tiles no others."""
        import torch

        inputs = super().model_inputs(prefixes)
        return inputs | (
            {"batch_num_images": torch.ones(len(inputs["pixel_values"]), dtype=torch.long)} if inputs else {}
        )


FAMILY = LlavaOnevision()
