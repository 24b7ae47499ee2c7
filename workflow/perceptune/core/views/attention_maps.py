"""Attention maps on the image: undoing the processor's geometry, and how much of a map lies inside a box."""

from __future__ import annotations

import numpy as np

Region = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the image: what the map's grid covers. It sticks out where the image was padded, and lies inside
where its middle was cut out."""


def on_image(attention: np.ndarray, region: Region, size: tuple[int, int]) -> np.ndarray:
    """The map (h, w) on a grid of about equal cells that covers exactly the image of `size` (width, height).

    Attention is shared out by area, so that it is the same amount wherever both cover the image; padding is dropped, and what
    was cut away has none. A grid that covers the image exactly comes back as it is.
    """
    rows, columns = attention.shape
    across = _shares(columns, (region[0], region[2]), size[0])
    down = _shares(rows, (region[1], region[3]), size[1])
    return np.asarray(down @ attention.astype(float) @ across.T)


def _shares(cells: int, covered: tuple[float, float], side: int) -> np.ndarray:
    """(target cells, `cells`): the share of each source cell that lies in each target cell, on one axis."""
    pitch = (covered[1] - covered[0]) / cells
    count = max(1, round(side / pitch))
    edges = np.linspace(0.0, side, count + 1)
    starts = covered[0] + pitch * np.arange(cells)
    overlap = np.minimum(edges[1:, None], starts[None] + pitch) - np.maximum(edges[:-1, None], starts[None])
    return np.clip(overlap, 0, None) / pitch


def coverage(shape: tuple[int, int], size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Share of every cell of a (rows, columns) grid over the image that lies inside the box: (rows, columns), 0 to 1."""
    sides = []
    for cells, side, low, high in ((shape[0], size[1], box[1], box[3]), (shape[1], size[0], box[0], box[2])):
        edges = np.linspace(0.0, side, cells + 1)
        inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        sides.append(np.clip(inside, 0, None) * cells / side)
    return np.outer(sides[0], sides[1])


def attention_focus_ratio(
    attention: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> float | None:
    """AFR (P2-DPO sec. 4; dossier b.3): mean attention inside the box by mean attention outside; cells on its edge count in parts.

    None where the box covers everything or nothing, or where nothing outside is attended to.
    """
    inside = coverage((attention.shape[0], attention.shape[1]), size, box)
    outside = 1 - inside
    if inside.sum() <= 1e-9 or outside.sum() <= 1e-9:
        return None
    away = float((attention * outside).sum() / outside.sum())
    return None if away <= 0 else float((attention * inside).sum() / inside.sum()) / away
