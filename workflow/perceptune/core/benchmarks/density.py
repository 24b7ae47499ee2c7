"""Density of pages: the number of characters of their true text (PerPO, figure 5).

Neither the paper nor its code says where its levels of density begin. Here they are the quarters of
a benchmark's own pages: they need no limits chosen by hand, suit any data, and their intervals are
about equally wide, because they have about equally many pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DENSITY = "density"
"""Condition of the rows of one quarter in the metrics table, with its number as `k`."""
LEVELS = 4


def quarters(lengths: Sequence[int]) -> np.ndarray:
    """The quarter of each page by its number of characters, from 1 (shortest) to 4: int64 of shape
    (pages,).

    The limits are the quartiles. A page at a limit belongs to the lower quarter, so that pages of
    the same length are in the same one; quarters of unequal size, or without pages, are possible.
    """
    if not len(lengths):
        return np.zeros(0, dtype=np.int64)
    limits = np.quantile(lengths, np.arange(1, LEVELS) / LEVELS)
    return 1 + np.searchsorted(limits, lengths, side="left")
