"""Semantic-aware mask: PAPO's second masked view, which blackens salient cells (arXiv:2507.06448)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.contracts.config import Share
from perceptune.core.views.masked import newly_black
from perceptune.core.views.patch_saliency import Saliency, salient_cells
from perceptune.core.views.view import Box, View, ViewParameters

if TYPE_CHECKING:
    from PIL.Image import Image


class SemanticParameters(ViewParameters):
    share: Share = 0.6
    """Share of an image's cells that become black, most salient first; rounded down to whole cells."""
    grid: tuple[int, int] | None = None
    """Set by perceptune in recipes: rows and columns of cells."""
    cells: tuple[tuple[int, ...], ...] = ()
    """Set by perceptune in recipes: row-major indices of each image's black cells, from 0."""


class Semantic(View):
    name = "semantic"
    Parameters = SemanticParameters
    needs_saliency = True

    def settled(self, parameters: SemanticParameters, saliency: Saliency) -> dict[str, Any]:
        """The parameters with the grid and the cells that become black."""
        cells = [salient_cells(one, parameters.share) for one in saliency.maps]
        return {"share": parameters.share, "grid": list(saliency.grid), "cells": cells}

    def apply(self, images: Sequence[Image], parameters: SemanticParameters, seed: int, box: Box | None) -> list[Image]:
        """Each image with its cells black; a pixel belongs to the cell of its upper left corner."""
        import numpy as np
        from PIL import Image as Pillow

        assert parameters.grid is not None
        if len(images) != len(parameters.cells):
            raise ValueError(f"view `semantic`: {len(images)} images, expected {len(parameters.cells)}")
        rows, columns = parameters.grid
        masked = []
        for image, cells in zip(images, parameters.cells, strict=True):
            black = np.zeros(rows * columns, dtype=bool)
            black[list(cells)] = True
            down, across = (
                np.arange(side) * count // side for side, count in ((image.height, rows), (image.width, columns))
            )
            pixels = np.array(image)
            pixels[black.reshape(rows, columns)[down][:, across]] = 0
            masked.append(Pillow.fromarray(pixels))
        return masked

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """Share of the first image's pixels that have become black."""
        return newly_black(images[0], shown[0])


VIEW = Semantic()
