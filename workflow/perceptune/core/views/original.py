"""The original images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.core.views.view import Box, View

if TYPE_CHECKING:
    from PIL.Image import Image


class Original(View):
    name = "original"

    def apply(self, images: Sequence[Image], parameters: Any, seed: int, box: Box | None) -> list[Image]:
        """The images unchanged."""
        return list(images)


VIEW = Original()
