"""Random perspective, one of CPPO's information-preserving views (arXiv:2601.00501)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.contracts.config import Share
from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    from PIL.Image import Image


class PerspectiveParameters(ViewParameters):
    distortion: Share = 0.2
    """Largest inward shift of a corner, as a share of half the side."""
    probability: Share = 0.5
    """Probability that an image is changed."""


class Perspective(View):
    name = "perspective"
    Parameters = PerspectiveParameters
    seeded = True

    def apply(
        self, images: Sequence[Image], parameters: PerspectiveParameters, seed: int, box: Box | None
    ) -> list[Image]:
        """Move each corner inwards by uniform shares; bilinear, black outside the image.

        An image with a side of one pixel stays as it is, because its corners coincide.
        """
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(seed)
        changed = []
        for image in images:
            moves = generator.random((4, 2)) * parameters.distortion / 2
            if generator.random() >= parameters.probability or min(image.size) == 1:
                changed.append(image.copy())
                continue
            right, bottom = image.width - 1, image.height - 1
            corners = np.array([(0, 0), (right, 0), (right, bottom), (0, bottom)], dtype=float)
            inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
            moved = corners + inwards * moves * (image.width, image.height)
            coefficients = _coefficients(moved, corners)
            changed.append(
                image.transform(image.size, Pillow.Transform.PERSPECTIVE, coefficients, Pillow.Resampling.BILINEAR)
            )
        return changed


def _coefficients(seen: Any, source: Any) -> list[float]:
    """Pillow's eight perspective coefficients a, ..., h from four pairs of corners.

    Source x = (a x + b y + c) / (g x + h y + 1), source y = (d x + e y + f) / (g x + h y + 1).
    """
    import numpy as np

    rows = []
    for (x, y), (u, v) in zip(seen, source, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return [float(value) for value in np.linalg.solve(np.array(rows), source.reshape(-1))]


VIEW = Perspective()
