"""Attention maps in image coordinates: undo the processor's geometry, and compare a map with a box."""

from __future__ import annotations

import numpy as np

Region = tuple[float, float, float, float]
"""The area that the map's grid covers: x1, y1, x2, y2 in pixels of the image. It is larger than the
image if the image was padded, and smaller if it was centre-cropped."""


def on_image(attention: np.ndarray, region: Region, size: tuple[int, int]) -> np.ndarray:
    """Resample the map (h, w) to a grid of similar cells that covers exactly the image of `size`.

    `size` is (width, height). Attention is distributed by area, which preserves its total inside
    the image; attention on padding is dropped, and areas that were cropped away have none. A grid
    that already covers the image exactly is unchanged. Returns float64 (rows, columns).
    """
    rows, columns = attention.shape
    across = _shares(columns, (region[0], region[2]), size[0])
    down = _shares(rows, (region[1], region[3]), size[1])
    return np.asarray(down @ attention.astype(float) @ across.T)


def _shares(cells: int, covered: tuple[float, float], side: int) -> np.ndarray:
    """Shares of source cells in target cells on one axis: (target cells, `cells`)."""
    pitch = (covered[1] - covered[0]) / cells
    count = max(1, round(side / pitch))
    edges = np.linspace(0.0, side, count + 1)
    starts = covered[0] + pitch * np.arange(cells)
    overlap = np.minimum(edges[1:, None], starts[None] + pitch) - np.maximum(edges[:-1, None], starts[None])
    return np.clip(overlap, 0, None) / pitch


def coverage(shape: tuple[int, int], size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Share of each cell of a (rows, columns) grid inside the box: (rows, columns), 0 to 1."""
    sides = []
    for cells, side, low, high in ((shape[0], size[1], box[1], box[3]), (shape[1], size[0], box[0], box[2])):
        edges = np.linspace(0.0, side, cells + 1)
        inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        sides.append(np.clip(inside, 0, None) * cells / side)
    return np.outer(sides[0], sides[1])


def attention_focus_ratio(
    attention: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> float | None:
    """AFR (P2-DPO, sec. 4): mean attention inside the box divided by mean attention outside.

    Cells on the edge of the box count by area. None if the box covers everything or nothing, or if
    there is no attention outside.
    """
    inside = coverage((attention.shape[0], attention.shape[1]), size, box)
    outside = 1 - inside
    if inside.sum() <= 1e-9 or outside.sum() <= 1e-9:
        return None
    away = float((attention * outside).sum() / outside.sum())
    return None if away <= 0 else float((attention * inside).sum() / inside.sum()) / away
