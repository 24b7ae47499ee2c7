"""The no-image condition: the same prompt with blank images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.core.views.view import Box, View

if TYPE_CHECKING:
    from PIL.Image import Image

GREY = (127, 127, 127)


class Blank(View):
    name = "blank"

    def apply(self, images: Sequence[Image], parameters: Any, seed: int, box: Box | None) -> list[Image]:
        """Mid-grey images of the same sizes, and so with as many image tokens."""
        from PIL import Image

        return [Image.new("RGB", image.size, GREY) for image in images]


VIEW = Blank()
