"""What stands out in an image, by the attention of its patches to one another (PAPO's semantic-aware mask, dossier b.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Saliency:
    """How salient the cells of an example's pictures are."""

    grid: tuple[int, int]
    """Rows and columns of every picture's cells; they are of equal size, as far as pixels allow."""
    maps: Sequence[Sequence[float]]
    """One per picture, row by row."""


def received(attention: np.ndarray, specials: int = 1) -> np.ndarray:
    """The attention that each patch receives from all patches: (..., N, N) of token i to token j to (..., N - specials).

    The first `specials` tokens (CLS, and registers where there are some) are no patches. What they attend to does not count,
    either: the dossier's "CLS excluded" is read as excluded altogether.
    """
    patches = attention[..., specials:, specials:]
    return patches.sum(axis=-2)


def salient_cells(saliency: Sequence[float], share: float) -> list[int]:
    """The floor(share x cells) most salient cells, in rising order; of equal ones the first.

    `share` counts as the decimal number that it was written as: 0.29 of 100 cells are 29, though 0.29 * 100 < 29.
    """
    count = math.floor(Fraction(str(share)) * len(saliency))
    ranked = sorted(range(len(saliency)), key=lambda cell: -saliency[cell])  # stable
    return sorted(ranked[:count])
