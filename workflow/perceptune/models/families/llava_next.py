"""LLaVA-NeXT, also LLaVA-1.6 (`LlavaNextForConditionalGeneration`)."""

from __future__ import annotations

from perceptune.models.families.llava_like import AnyResolution


class LlavaNext(AnyResolution):
    """Boxes as in LLaVA-1.5, whose instruction data its own contain.

    Its makers do not say whether they adapted the boxes to tiles (haotian-liu/LLaVA#1158): `coordinates` can be set otherwise.
    """

    name = "llava_next"
    model_types = ("llava_next",)
    frame = "padded_square"


FAMILY = LlavaNext()
