"""LLaVA-NeXT, also known as LLaVA-1.6 (`LlavaNextForConditionalGeneration`)."""

from __future__ import annotations

from perceptune.models.families.llava_like import AnyResolution


class LlavaNext(AnyResolution):
    """Boxes as in LLaVA-1.5, whose instruction data is part of its own.

    The authors do not say whether they adapted the boxes to tiles (haotian-liu/LLaVA#1158); set
    `coordinates` to override.
    """

    name = "llava_next"
    model_types = ("llava_next",)
    frame = "padded_square"
    feature_layer = -2


FAMILY = LlavaNext()
