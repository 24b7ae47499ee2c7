"""Semantic-aware mask: PAPO's other masked view, which blackens what stands out (arXiv:2507.06448)."""

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
    """Share of an image's cells that become black, the most salient ones; rounded down to whole cells."""
    grid: tuple[int, int] | None = None
    """Of a recipe only: rows and columns of cells."""
    cells: tuple[tuple[int, ...], ...] = ()
    """Of a recipe only: the numbers of the black cells of each picture, from 0, row by row."""


class Semantic(View):
    name = "semantic"
    Parameters = SemanticParameters
    needs_saliency = True

    def settled(self, parameters: SemanticParameters, saliency: Saliency) -> dict[str, Any]:
        """The parameters, and the cells that they make black."""
        cells = [salient_cells(one, parameters.share) for one in saliency.maps]
        return {"share": parameters.share, "grid": list(saliency.grid), "cells": cells}

    def apply(self, images: Sequence[Image], parameters: SemanticParameters, seed: int, box: Box | None) -> list[Image]:
        """Every image with its own cells black; a pixel belongs to the cell that its upper left corner lies in."""
        import numpy as np
        from PIL import Image as Pillow

        assert parameters.grid is not None
        if len(images) != len(parameters.cells):
            raise ValueError(f"view `semantic` has cells of {len(parameters.cells)} pictures, got {len(images)}")
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
        """Share of the first image's pixels that are black now and were not before."""
        return newly_black(images[0], shown[0])


VIEW = Semantic()
