"""Which frame the numbers of boxes mean: what is possible, what is likely; a wrong one is reported, never replaced.

Wrong frames are the most frequent error of grounding results (dossier a.3). Two checks find them: of a data set's boxes, by
the bounds of their images (`fits`, `doubt`), and of a model's answers, by their overlap with the truth (`overlaps`,
`likelier`). Both only say what they see: to take the reading that scores best would be to use the answers as an oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np

from perceptune.contracts.config import Coordinates
from perceptune.core.answers import boxes as geometry
from perceptune.core.answers.boxes import Frame

SHARES: dict[Coordinates, tuple[Frame, float]] = {
    "normalised": ("original", 1.0),
    "thousand": ("thousand", 1000.0),
    "padded_normalised": ("padded_square", 1.0),
    "padded_thousand": ("padded_square", 1000.0),
}
"""Coordinates that are no pixels, to their frame and the largest number there can be."""

IN_SHARES: tuple[Coordinates, ...] = ("normalised", "padded_normalised")
SLACK = 1.0
"""Pixels by which a box may leave its image."""
ROUNDED = 0.006
"""The same in the padded frames, as a share of the longer side: numbers of two decimals are up to 0.005 wrong."""
FEWEST = 20
"""Boxes below which nothing is concluded."""
CLEAR = 0.05
"""Difference of mean IoU from which another reading is reported."""


def in_pixels(boxes: np.ndarray, coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) of a data set as pixels of images of `sizes` (n, 2; width, height)."""
    if coordinates == "pixels":
        return boxes
    frame, most = SHARES[coordinates]
    return geometry.to_pixels(boxes if frame == "thousand" else boxes / most, frame, sizes)


def slack(coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Pixels by which boxes may leave their images, shape (n,)."""
    padded = coordinates.startswith("padded")
    return np.maximum(SLACK, ROUNDED * sizes.max(axis=1)) if padded else np.full(len(sizes), SLACK)


def fits(boxes: np.ndarray, coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Whether each box (n, 4), read like this, is a box in its image: shape (n,), bool."""
    pixels, free = in_pixels(boxes, coordinates, sizes), slack(coordinates, sizes)[:, None]
    inside = (pixels[:, :2] >= -free).all(axis=1) & (pixels[:, 2:] <= sizes + free).all(axis=1)
    most = boxes.max(axis=1)
    possible = most <= SHARES[coordinates][1] if coordinates in SHARES else np.full(len(boxes), True)
    if coordinates not in IN_SHARES:
        possible &= (most > 1) | (sizes.max(axis=1) <= 2)  # else a box in the first pixel: shares, much rather
    return geometry.is_box(pixels) & inside & possible


def touched(boxes: np.ndarray, coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Whether each box fits and ends at the right and at the bottom edge of its image: shape (n, 2), bool.

    The left and the top edge tell nothing: read as larger numbers than they are, all boxes move there.
    """
    pixels = in_pixels(boxes, coordinates, sizes)
    near = slack("padded_normalised", sizes)[:, None]
    return (pixels[:, 2:] >= sizes - near) & fits(boxes, coordinates, sizes)[:, None]


def fitting(boxes: np.ndarray, sizes: np.ndarray) -> dict[Coordinates, int]:
    """How many boxes fit under each reading."""
    return {name: int(fits(boxes, name, sizes).sum()) for name in get_args(Coordinates)}


def better_fit(boxes: np.ndarray, declared: Coordinates, sizes: np.ndarray) -> str | None:
    """The reading that more boxes fit than the declared one, in words; None where there is none."""
    count = fitting(boxes, sizes)
    best = max(count, key=lambda name: count[name])
    if count[best] > count[declared]:
        best, *_ = _likelier_by_edges(boxes, best, sizes) or (best,)
        return f"`coordinates: {best}` fits {count[best]} of {len(boxes)} boxes, `{declared}` {count[declared]}"
    sides = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    if (number := int(fits(sides, declared, sizes).sum())) > count[declared]:
        return (
            f"read as [x, y, width, height] {number} of {len(boxes)} boxes fit, as [x1, y1, x2, y2] {count[declared]}"
        )
    return None


def doubt(boxes: np.ndarray, declared: Coordinates, sizes: np.ndarray) -> str | None:
    """Why another reading is likelier although the declared one is possible, in words; None where nothing speaks for one."""
    found = _likelier_by_edges(boxes, declared, sizes)
    if found is None:
        return None
    other, more, fewer = found
    return (
        f"is it `coordinates: {other}`? Of {len(boxes)} boxes {more} end at an edge of their image only if they are read as"
        f" `{other}`, {fewer} only as `{declared}`"
    )


def _likelier_by_edges(
    boxes: np.ndarray, declared: Coordinates, sizes: np.ndarray
) -> tuple[Coordinates, int, int] | None:
    """Another reading that fits as many boxes, and how many end at an edge only under it, and only under the declared one.

    Things are cut off by the edge of the image, so of many boxes some end there exactly. A reading is doubtful when under
    another one in fifty boxes more do so, and hardly any fewer.
    """
    if len(boxes) < FEWEST:
        return None
    count, ours = fitting(boxes, sizes), touched(boxes, declared, sizes)
    for name in get_args(Coordinates):
        theirs = touched(boxes, name, sizes)
        more, fewer = (int((a & ~b).any(axis=1).sum()) for a, b in ((theirs, ours), (ours, theirs)))
        if count[name] >= count[declared] and more >= max(5, len(boxes) / 50) and fewer <= more / 4:
            return name, more, fewer
    return None


def overlaps(
    written: np.ndarray, truths: np.ndarray, sizes: np.ndarray, resized: np.ndarray | None
) -> dict[Frame, np.ndarray]:
    """IoU (n,) of a model's boxes (n, 4) with the true ones, in pixels, under each reading of its numbers.

    NaN numbers overlap with nothing. `resized` as in `to_pixels`; without it there is no reading `resized_pixels`.
    """
    readings = [frame for frame in get_args(Frame) if frame != "resized_pixels" or resized is not None]
    return {frame: geometry.iou(geometry.to_pixels(written, frame, sizes, resized), truths) for frame in readings}


def likelier(ious: Mapping[Frame, np.ndarray], declared: Frame) -> Frame | None:
    """The reading with the highest mean IoU, where it is clearly higher than the declared one's; None otherwise.

    Clearly: by 0.05 and by three standard errors of the paired difference, of 20 answers at least.
    """
    best = max(ious, key=lambda frame: float(ious[frame].mean()) if len(ious[frame]) else 0.0)
    gain = ious[best] - ious[declared]
    if len(gain) < FEWEST or gain.mean() < CLEAR or gain.mean() < 3 * gain.std(ddof=1) / np.sqrt(len(gain)):
        return None
    return best


def overlap_lines(ious: Mapping[Frame, np.ndarray], declared: Frame) -> list[str]:
    """Mean IoU under each reading, and a warning where another one than the declared is likelier."""
    means = ", ".join(f"`{frame}` {ious[frame].mean():.3f}" for frame in ious)
    lines = [f"mean IoU of {len(ious[declared])} boxes by what their numbers may mean: {means}; declared: `{declared}`"]
    if other := likelier(ious, declared):
        lines.append(
            f"warning: the model's numbers look like `{other}`, not `{declared}`;"
            f" if so, set `coordinates: {other}` in its model block"
        )
    return lines
