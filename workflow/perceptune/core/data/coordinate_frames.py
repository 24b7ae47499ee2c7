"""Diagnose coordinate formats: which ones are possible or likely for some boxes.

A wrong coordinate format is the most frequent error of grounding results. Two checks find it: a
data set's boxes are compared with the bounds of their images (`BoxFits`), and a model's boxes
with the ground truth (`overlaps`, `Overlaps`). Both only report: to switch to the format that
scores best would be to use the ground truth as an oracle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np

from perceptune.contracts.config import Boxes, Coordinates
from perceptune.core.answers import boxes as geometry
from perceptune.core.answers.boxes import Frame

SHARES: dict[Coordinates, tuple[Frame, float]] = {
    "normalised": ("original", 1.0),
    "thousand": ("thousand", 1000.0),
    "padded_normalised": ("padded_square", 1.0),
    "padded_thousand": ("padded_square", 1000.0),
}
"""Coordinates other than pixels to their frame and largest possible value."""

IN_SHARES: tuple[Coordinates, ...] = ("normalised", "padded_normalised")
SLACK = 1.0
"""Tolerance in pixels for boxes that exceed their image."""
ROUNDED = 0.006
"""Tolerance in padded frames, as a share of the longer side: two decimals err by 0.005."""
ORDER_FAILS = 2 / 3
"""If fewer than this share of the boxes fit, the order of their numbers is doubted: boxes near the top
left fit in any order."""
UNIT_FAILS = 1 / 2
"""If fewer than this share of the boxes fit, their unit is doubted: as thousandths, all boxes of photos
below 1000 pixels fit."""
NEARLY_ALL = 0.9
"""Share of the boxes that must fit in another unit or order."""
HARDLY_ANY = 0.1
"""If at most this share of the boxes fits, another unit or order may fit fewer than nearly all: two
thirds."""
CLEARLY_MORE = 0.1
"""Share of the boxes by which more must fit in another unit and another order than in one of them."""
TIED = 0.02
"""Share of the boxes by which orders may differ that fit equally well, because a few rows are wrong."""
FEWEST = 20
"""With fewer boxes, no conclusion is drawn."""
CLEAR = 0.05
"""Smallest difference of mean IoU at which another coordinate format is reported."""
FORMATS: tuple[Coordinates, ...] = get_args(Coordinates)
LAYOUTS: dict[Boxes, str] = {
    "xyxy": "[x1, y1, x2, y2]",
    "xywh": "[x, y, width, height]",
    "cxcywh": "[x, y, width, height] with the centre x, y",
    "yxyx": "[y1, x1, y2, x2]",
}
"""Orders of a box's four numbers, as shown in messages."""


class Reading(NamedTuple):
    """How the numbers of boxes are understood."""

    order: Boxes
    unit: Coordinates


def in_corners(boxes: np.ndarray, order: Boxes) -> np.ndarray:
    """Boxes (n, 4) in this order as [x1, y1, x2, y2], in the same unit."""
    if order == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if order == "xyxy":
        return boxes
    place, size = boxes[:, :2], boxes[:, 2:]
    first = place - size / 2 if order == "cxcywh" else place
    return np.concatenate([first, first + size], axis=1)


def in_pixels(boxes: np.ndarray, coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Convert boxes (n, 4) of a data set to pixels of images of `sizes` (n, 2; width, height)."""
    if coordinates == "pixels":
        return boxes
    frame, most = SHARES[coordinates]
    return geometry.to_pixels(boxes if frame == "thousand" else boxes / most, frame, sizes)


def most_of(coordinates: Coordinates) -> float:
    """Largest number of a box in shares: 1 or 1000, and a little more, because the sum of a rounded
    centre and half of a rounded width may exceed it."""
    return SHARES[coordinates][1] * 1.0008


def slack(coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Tolerance in pixels for boxes that exceed their images, shape (n,)."""
    padded = coordinates.startswith("padded")
    return np.maximum(SLACK, ROUNDED * sizes.max(axis=1)) if padded else np.full(len(sizes), SLACK)


def fits(boxes: np.ndarray, coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Whether each box (n, 4), interpreted in `coordinates`, lies in its image: shape (n,), bool."""
    pixels, free = in_pixels(boxes, coordinates, sizes), slack(coordinates, sizes)[:, None]
    inside = (pixels[:, :2] >= -free).all(axis=1) & (pixels[:, 2:] <= sizes + free).all(axis=1)
    most = boxes.max(axis=1)
    possible = most <= most_of(coordinates) if coordinates in SHARES else np.full(len(boxes), True)
    if coordinates not in IN_SHARES:
        possible &= (most > 1) | (
            sizes.max(axis=1) <= 2
        )  # else it would be a box inside one pixel: far more likely fractions
    return geometry.is_box(pixels) & inside & possible


def are_fractions(written: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether boxes (n, 4), as they are written, can only be fractions of their images: shape (n,), bool.

    As [x, y, width, height], the corners of such boxes may be beyond 1.
    """
    return (written.max(axis=1) < 1) & (sizes.max(axis=1) > 2)


def touched(boxes: np.ndarray, coordinates: Coordinates, sizes: np.ndarray) -> np.ndarray:
    """Whether each box fits and ends at the right or bottom edge of its image: shape (n, 2), bool.

    The left and top edges are no evidence: with too large a unit, all boxes move towards them.
    """
    pixels = in_pixels(boxes, coordinates, sizes)
    near = slack("padded_normalised", sizes)[:, None]
    return (pixels[:, 2:] >= sizes - near) & fits(boxes, coordinates, sizes)[:, None]


class BoxFits:
    """How boxes of a data set fit their images in each coordinate format and order. Boxes are only
    counted, so that a data set can be checked batch by batch."""

    def __init__(self, declared: Coordinates, order: Boxes = "xyxy", orders: Sequence[Boxes] = tuple(LAYOUTS)) -> None:
        """`declared` and `order` are those of the boxes, `orders` those that the config can set."""
        self.declared = declared
        self.order: Boxes = order
        self.boxes = 0
        self.turned = 0
        """Boxes on images that EXIF rotates."""
        self.fitting: dict[Coordinates, int] = dict.fromkeys(FORMATS, 0)
        """Boxes that fit in the declared order, by coordinates."""
        self._others: dict[tuple[Boxes, Coordinates], int] = {
            (other, name): 0 for other in orders if other != order for name in FORMATS
        }
        """Boxes that fit in another order."""
        self._fit_as_stored = 0
        self._edges = np.zeros((len(FORMATS), len(FORMATS)), int)
        """Boxes that end at an edge of their image in the format of the row, but not in that of the
        column."""

    def add(self, boxes: np.ndarray, sizes: np.ndarray, turned: np.ndarray) -> None:
        """Adds boxes (n, 4) as they are written, on upright images of `sizes` (n, 2; width, height),
        which EXIF rotates where `turned` (n,)."""
        fractions = are_fractions(boxes, sizes)
        possible = {name: ~fractions | (name in IN_SHARES) for name in FORMATS}
        for order, name in self._others:
            fit_so = fits(in_corners(boxes, order), name, sizes) & possible[name]
            self._others[order, name] += int(fit_so.sum())
        boxes = in_corners(boxes, self.order)
        fit = {name: fits(boxes, name, sizes) & possible[name] for name in FORMATS}
        self.boxes += len(boxes)
        self.turned += int(turned.sum())
        for name in FORMATS:
            self.fitting[name] += int(fit[name].sum())
        as_stored = fits(boxes, self.declared, sizes[:, ::-1])
        self._fit_as_stored += int((turned & ~fit[self.declared] & as_stored).sum())
        edges = np.stack([touched(boxes, name, sizes) for name in FORMATS])
        self._edges += (edges[:, None] & ~edges[None]).any(axis=3).sum(axis=2)

    def as_stored(self) -> str | None:
        """A message if most boxes that do not fit would fit images as stored, before rotation by EXIF;
        else None."""
        unfit = self.boxes - self.fitting[self.declared]
        if 2 * self._fit_as_stored <= unfit:
            return None
        return (
            f"{self._fit_as_stored} of {unfit} boxes that do not fit their image are on images that EXIF rotates,"
            " and fit them as stored; boxes refer to the upright image"
        )

    def likelier(self, *, units: bool = True) -> list[Reading]:
        """Other units or orders of the boxes, the likeliest first; empty if the declared ones are not in
        doubt, as with a few wrong rows. `units`: whether another unit is possible.

        That others fit more boxes proves nothing, so two conditions apply. The declared reading fails
        for more than a third of the boxes for another order, and for more than half for another unit;
        and the other reading fits nearly all, or two thirds where the declared one fits hardly any. A
        reading that differs in both unit and order must fit clearly more boxes than those that differ
        in one of them: there are many, so that one of them fits by chance. If another order and another
        unit fit, it is the order unless there are few boxes: boxes in pixels of small images also fit
        as thousandths, but not the other way round.
        """
        now = self.fitting[self.declared]
        unit = max(self.fitting, key=lambda name: self.fitting[name])
        orders = {order: count for (order, name), count in self._others.items() if name == self.declared}
        found = self._best_orders(orders) if now < ORDER_FAILS * self.boxes else []
        if not units or now >= UNIT_FAILS * self.boxes:
            return found
        by_order = max(orders.values(), default=0)
        both, count = max(self._others.items(), key=lambda one: one[1], default=((self.order, unit), 0))
        if count > max(self.fitting[unit], by_order) + CLEARLY_MORE * self.boxes:
            return [Reading(*both)] if self._explains(count) else []
        ordered = self.boxes >= FEWEST and by_order >= ORDER_FAILS * self.boxes
        if ordered or unit == self.declared or not self._explains(self.fitting[unit]):
            return found
        unit, *_ = self._likelier_by_edges(unit) or (unit,)
        return [Reading(self.order, unit), *found]

    def count(self, reading: Reading) -> int:
        """The number of boxes that fit their images in this order and unit."""
        return self.fitting[reading.unit] if reading.order == self.order else self._others[reading]

    def better_fit(self) -> str | None:
        """A message that names `likelier` readings; None if there are none."""
        found = sorted(self.likelier(), key=lambda one: one.order == self.order)
        if not found:
            return None
        of_order = any(one.order != self.order for one in found)
        of_unit = any(one.unit != self.declared for one in found)
        declared = " in ".join([f"`{self.order}`"] * of_order + [f"`{self.declared}`"] * of_unit)
        names, counts = [self._named(one) for one in found], [self.count(one) for one in found]
        fit = (
            f"{' or '.join(names)} fits {counts[0]} of {self.boxes} boxes"
            if len({*counts}) == 1
            else " or ".join(
                f"{name} fits {count} of {self.boxes} boxes" for name, count in zip(names, counts, strict=True)
            )
        )
        return f"{fit}, {declared} {self.fitting[self.declared]}"

    def _best_orders(self, counts: Mapping[Boxes, int]) -> list[Reading]:
        """The orders that fit most boxes, and as many up to a few, the usual ones first."""
        most = max(counts.values(), default=0)
        if not self._explains(most):
            return []
        return [Reading(one, self.declared) for one, count in counts.items() if count >= most - TIED * self.boxes]

    def _explains(self, count: int) -> bool:
        """Whether a reading that fits `count` boxes may be the right one."""
        hardly = self.fitting[self.declared] <= HARDLY_ANY * self.boxes
        return count >= (ORDER_FAILS if hardly else NEARLY_ALL) * self.boxes

    def _named(self, reading: Reading) -> str:
        order = f"`boxes: {reading.order}` ({LAYOUTS[reading.order]})" if reading.order != self.order else ""
        unit = f"`coordinates: {reading.unit}`" if reading.unit != self.declared else ""
        return " with ".join(filter(None, (order, unit)))

    def doubt(self) -> str | None:
        """A message if other coordinates are likelier than the declared, possible ones; else None."""
        found = self._likelier_by_edges(self.declared)
        if found is None:
            return None
        other, more, fewer = found
        return (
            f"is it `coordinates: {other}`? {more} of {self.boxes} boxes end at an edge of their image only"
            f" as `{other}`, {fewer} only as `{self.declared}`"
        )

    def _likelier_by_edges(self, declared: Coordinates) -> tuple[Coordinates, int, int] | None:
        """Likelier coordinates that fit as many boxes, with two counts; None if there are none.

        The counts: boxes that end at an edge only under the returned coordinates, and only under the
        declared ones. Objects are cut off by the edge of the image, so some of many boxes end exactly
        there. The declared coordinates are doubtful if under others at least one in fifty boxes ends at
        an edge in addition, and hardly any no longer does.
        """
        if self.boxes < FEWEST:
            return None
        expected = FORMATS.index(declared)
        for number, name in enumerate(FORMATS):
            more, fewer = int(self._edges[number, expected]), int(self._edges[expected, number])
            enough = more >= max(5, self.boxes / 50) and fewer <= more / 4
            if self.fitting[name] >= self.fitting[declared] and enough:
                return name, more, fewer
        return None


def overlaps(
    written: np.ndarray, truths: np.ndarray, sizes: np.ndarray, resized: np.ndarray | None
) -> dict[Frame, np.ndarray]:
    """IoU (n,) of a model's boxes (n, 4) with the ground truth in pixels, by coordinate format.

    Boxes with NaN have IoU 0. `resized` as in `to_pixels`; without it, `resized_pixels` is left
    out.
    """
    readings = [frame for frame in get_args(Frame) if frame != "resized_pixels" or resized is not None]
    return {frame: geometry.iou(geometry.to_pixels(written, frame, sizes, resized), truths) for frame in readings}


class Overlaps:
    """How well a model's boxes overlap the ground truth under each coordinate format.

    Holds sums, so that boxes are added in batches.
    """

    def __init__(self, declared: Frame) -> None:
        """`declared`: the format that the model block or its family declares."""
        self.declared = declared
        self.count = 0
        self._ious: defaultdict[Frame, float] = defaultdict(float)
        self._squared_gains: defaultdict[Frame, float] = defaultdict(float)
        """Sums of squared differences to the declared format's IoU."""

    def add(self, ious: Mapping[Frame, np.ndarray]) -> None:
        """Adds boxes with their IoU under each format, see `overlaps`."""
        self.count += len(ious[self.declared])
        for frame, values in ious.items():
            self._ious[frame] += float(values.sum())
            self._squared_gains[frame] += float(((values - ious[self.declared]) ** 2).sum())

    def means(self) -> dict[Frame, float]:
        """The mean IoU under each format; empty without boxes."""
        return {frame: total / self.count for frame, total in self._ious.items()} if self.count else {}

    def likelier(self) -> Frame | None:
        """The format with the highest mean IoU if clearly above the declared format's; else None.

        Clearly: by at least 0.05 and three standard errors of the paired difference, over at least
        20 boxes.
        """
        if self.count < FEWEST:
            return None
        means = self.means()
        best = max(means, key=lambda frame: means[frame])
        gain = means[best] - means[self.declared]
        variance = max(self._squared_gains[best] - self.count * gain**2, 0.0) / (self.count - 1)
        return None if gain < CLEAR or gain < 3 * np.sqrt(variance / self.count) else best

    def lines(self) -> list[str]:
        """Log lines: mean IoU by coordinate format, and a warning if another one is likelier; none
        without boxes."""
        if not self.count:
            return []
        means = ", ".join(f"`{frame}` {mean:.3f}" for frame, mean in self.means().items())
        lines = [f"mean IoU of {self.count} boxes by coordinate format: {means}; declared: `{self.declared}`"]
        if other := self.likelier():
            lines.append(
                f"warning: the model's boxes look like `{other}`, not `{self.declared}`;"
                f" if so, set `coordinates: {other}` in its model block"
            )
        return lines
