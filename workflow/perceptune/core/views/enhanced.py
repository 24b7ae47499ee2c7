"""I_aug of P2-DPO (arXiv:2606.03376): the image, and its salient crop as an additional image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.core.views.view import Box, View, clipped

if TYPE_CHECKING:
    from PIL.Image import Image


class Enhanced(View):
    name = "enhanced"
    needs_box = True

    def keeps_size(self, parameters: Any) -> bool:
        """False: there is one more image."""
        return False

    def count(self, images: int) -> int:
        """One more: the crop of the first image."""
        return images + 1

    def apply(self, images: Sequence[Image], parameters: Any, seed: int, box: Box | None) -> list[Image]:
        """The images, followed by the first one's crop."""
        assert box is not None
        return [*images, images[0].crop(clipped(box, images[0].size))]

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """Share of the first image's area that the crop covers."""
        return shown[-1].width * shown[-1].height / (images[0].width * images[0].height)


VIEW = Enhanced()
