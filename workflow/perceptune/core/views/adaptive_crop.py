"""The adaptive crop of P2-DPO (arXiv:2606.03376, algorithm 1), by a summed-area table.

An attention map is a (rows, columns) array of equal cells that cover the whole image. Boxes are
(x1, y1, x2, y2) in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Literal

import numpy as np

Box = tuple[float, float, float, float]
Variant = Literal["paper", "code"]
RATIOS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


@dataclass(frozen=True)
class Window:
    """The best window of `columns` x `rows` cells: its first cell (`x`, `y`), sum and contrast D."""

    ratio: float
    columns: int
    rows: int
    x: int
    y: int
    total: float
    contrast: float


@dataclass(frozen=True)
class Crop:
    """A crop. `flag` is why it is unusable, `empty map` or `whole image`; None if it is usable."""

    box: Box
    ratio: float
    contrast: float
    flag: str | None = None


def window_sums(attention: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Sums over all windows of `columns` x `rows` cells: (H - rows + 1, W - columns + 1), float64."""
    table = np.zeros((attention.shape[0] + 1, attention.shape[1] + 1))
    table[1:, 1:] = attention.cumsum(axis=0, dtype=float).cumsum(axis=1)
    return table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]


def neighbour_mean(sums: np.ndarray, y: int, x: int, neighbours: Literal[4, 8] = 4) -> float:
    """Mean of the existing window sums around (y, x); the sum at (y, x) if there are none."""
    around = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    around += [(-1, -1), (-1, 1), (1, -1), (1, 1)] if neighbours == 8 else []
    places = [(y + dy, x + dx) for dy, dx in around]
    found = [sums[v, u] for v, u in places if 0 <= v < sums.shape[0] and 0 <= u < sums.shape[1]]
    return float(np.mean(found)) if found else float(sums[y, x])


def windows(
    attention: np.ndarray,
    size: tuple[int, int],
    base: tuple[int, int],
    ratios: Sequence[float] = RATIOS,
    neighbours: Literal[4, 8] = 4,
    variant: Variant = "paper",
) -> Iterator[Window]:
    """The best window of every ratio, except ratios whose window would be the whole map.

    `size` and `base` are (width, height) in pixels. Ties go to the first window in row-major order
    in the variant `paper`, in column-major order in the variant `code`.
    """
    tall, wide = attention.shape
    cell = size[0] / wide, size[1] / tall
    for ratio in ratios:
        columns = max(1, min(wide, int(base[0] * ratio / cell[0])))
        rows = max(1, min(tall, int(base[1] * ratio / cell[1])))
        if (columns, rows) == (wide, tall):
            continue
        sums = window_sums(attention, columns, rows)
        if variant == "paper":
            y, x = np.unravel_index(sums.argmax(), sums.shape)
        else:
            x, y = np.unravel_index(sums.T.argmax(), sums.T.shape)
        best = float(sums[y, x])
        contrast = (best - neighbour_mean(sums, int(y), int(x), neighbours)) / (columns * rows)
        yield Window(ratio, columns, rows, int(x), int(y), best, contrast)


def adaptive_crop(
    attention: np.ndarray,
    size: tuple[int, int],
    base: tuple[int, int],
    ratios: Sequence[float] = RATIOS,
    neighbours: Literal[4, 8] = 4,
    variant: Variant = "paper",
) -> Crop:
    """The crop around the window of highest contrast to its neighbours; ties: smallest ratio.

    `size` and `base` are (width, height) in pixels. A base window as large as the map, or a crop
    that covers the image, is flagged `whole image`; a map without any attention, `empty map`.
    """
    wide, tall = attention.shape[1], attention.shape[0]
    full = int(base[0] * ratios[0] / (size[0] / wide)) >= wide and int(base[1] * ratios[0] / (size[1] / tall)) >= tall
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    found = list(windows(attention, size, base, ratios, neighbours, variant))
    if full or not found:
        return Crop(whole, ratios[0], 0.0, "whole image")
    best = found[0]
    for window in found[1:]:  # contrasts that differ only by rounding count as equal
        if window.contrast > best.contrast and not isclose(window.contrast, best.contrast, rel_tol=1e-9):
            best = window
    box = _box(best, attention.shape, size, base, variant)
    flag = "empty map" if not (attention > 0).any() else "whole image" if box == whole else None
    return Crop(box, best.ratio, best.contrast, flag)


def inverse_crop(
    attention: np.ndarray, size: tuple[int, int], base: tuple[int, int], crop: Crop, variant: Variant = "paper"
) -> Box:
    """The control: the least attended crop of the same size; ties: first in row-major order."""
    wide, tall = attention.shape[1], attention.shape[0]
    columns = max(1, min(wide, int(base[0] * crop.ratio / (size[0] / wide))))
    rows = max(1, min(tall, int(base[1] * crop.ratio / (size[1] / tall))))
    sums = window_sums(attention, columns, rows)
    y, x = np.unravel_index(sums.argmin(), sums.shape)
    least = Window(crop.ratio, columns, rows, int(x), int(y), float(sums[y, x]), 0.0)
    return _box(least, attention.shape, size, base, variant)


def _box(window: Window, shape: tuple[int, ...], size: tuple[int, int], base: tuple[int, int], variant: Variant) -> Box:
    across = _span(window.x, window.columns, size[0] / shape[1], base[0] * window.ratio, size[0], variant)
    down = _span(window.y, window.rows, size[1] / shape[0], base[1] * window.ratio, size[1], variant)
    return across[0], down[0], across[1], down[1]


def _span(first: int, cells: int, cell: float, length: float, side: int, variant: Variant) -> tuple[float, float]:
    """Start and end on one axis: `length` pixels around the middle, kept inside the image."""
    if variant == "code":
        middle: float = int(first * cell + cell * cells / 2)
        half = length // 2
        middle = min(max(middle, half), side - half) if 2 * half <= side else side / 2
        return max(0.0, float(middle - half)), min(float(side), float(middle + half))
    middle = first * cell + length / 2
    half = length / 2
    middle = min(max(middle, half), side - half) if length <= side else side / 2
    return float(max(0, int(middle - half))), float(min(side, int(middle + half)))
