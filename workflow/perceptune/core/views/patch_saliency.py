"""Patch saliency from patch-to-patch attention (PAPO's semantic-aware mask, arXiv:2507.06448)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perceptune.contracts.shares import exact_share

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Saliency:
    """Saliency maps of an example's images."""

    grid: tuple[int, int]
    """Rows and columns of cells of every image; cells have equal sizes up to whole pixels."""
    maps: Sequence[Sequence[float]]
    """One map per image, in row-major order."""


def received(attention: np.ndarray, specials: int = 1) -> np.ndarray:
    """The attention that each patch receives from all patches: (..., N, N) to (..., N - specials).

    Entry (i, j) of the input is the attention of token i to token j. The first `specials` tokens
    (CLS and registers) are not patches; the attention that they pay is excluded as well.
    """
    patches = attention[..., specials:, specials:]
    return patches.sum(axis=-2)


def salient_cells(saliency: Sequence[float], share: float) -> list[int]:
    """The indices of the floor(share x cells) most salient cells, ascending; ties go to the first."""
    count = math.floor(exact_share(share, len(saliency)))
    ranked = sorted(range(len(saliency)), key=lambda cell: -saliency[cell])  # stable
    return sorted(ranked[:count])
