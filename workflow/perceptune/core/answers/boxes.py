"""Boxes: parsing them from text, converting between coordinate formats, and their overlap.

Boxes are (x1, y1, x2, y2) with the origin at the top left. Arrays of boxes have shape (n, 4),
float64.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from perceptune.contracts.errors import UserError

Frame = Literal["padded_square", "original", "resized_pixels", "thousand"]

DIGITS = r"-?(?:\d+(?:\.\d*)?|\.\d+)"
QUOTE = r"""(?:["']\s*)?"""
NUMBER = rf"\s*{QUOTE}{DIGITS}\s*{QUOTE}"
OPENING, CLOSING = r"(?:[\[(]|<box>)", r"(?:[\])]|</box>)"
PAIR = rf"[\[(]{NUMBER},{NUMBER}[\])]"
BRACKETED = re.compile(
    rf"{OPENING}{NUMBER},{NUMBER},{NUMBER},{NUMBER}{CLOSING}"
    rf"|{OPENING}\s*{DIGITS}(?:\s+{DIGITS}){{3}}\s*{CLOSING}"
    rf"|{PAIR}(?:\s*,\s*{PAIR})+"
)
"""Four numbers in brackets, or a list of points. Points are a box if there are two of them."""
UNREAD = "no box: expected four numbers in brackets"
"""Why `parse_box` finds none."""

_BLANKS, _PLAIN_DIGITS = r"[ \t\r\n]*", r"(-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
_PLAIN_TEXT, _OPENINGS = r"[^\[(<]*", rf"(?:{OPENING}{_BLANKS})+"
PLAIN_BOX = (
    rf"^{_PLAIN_TEXT}{_OPENINGS}(?:[A-Za-z{{]{_PLAIN_TEXT}{_OPENINGS})*"
    rf"{rf'{_BLANKS},{_BLANKS}'.join([_PLAIN_DIGITS] * 4)}{_BLANKS}{CLOSING}"
)
"""Usual ASCII texts up to the first match of `BRACKETED`, which is four numbers with commas. Brackets
before it are followed by another bracket, a letter or a brace, so no match begins there. One
character always decides what follows, which makes the search fast."""


def parse_box(text: str) -> tuple[float, float, float, float] | None:
    """The first box in `text`, or None: four decimal numbers in brackets, or two points.

    Models write square or round brackets or `<box>` tags; numbers with or without quotes, separated
    by commas or blanks; corners as points, `(x1,y1),(x2,y2)` or `[[x1,y1],[x2,y2]]`; and full-width
    characters such as `，` or `［`. Lists of more points are polygons, not boxes. This is wider than
    the rule of lmms-eval's RefCOCO task, which reads square brackets, digits on both sides of a
    decimal point and no blank before a comma.
    """
    for match in BRACKETED.finditer(text if text.isascii() else unicodedata.normalize("NFKC", text)):
        numbers = [float(number) for number in re.findall(DIGITS, match[0])]
        if len(numbers) == 4 and np.isfinite(numbers).all():
            x1, y1, x2, y2 = numbers
            return x1, y1, x2, y2
    return None


def parse_boxes(texts: Sequence[str]) -> np.ndarray:
    """The first box in each text as in `parse_box`, shape (n, 4); NaN where there is none.

    Polars reads the usual answers together, and `parse_box` the others.
    """
    import polars as pl  # here, since the Snakefile also loads rewards

    usual = pl.Series([text if text.isascii() else None for text in texts], dtype=pl.String)
    numbers = usual.str.extract_groups(PLAIN_BOX).struct.unnest().cast(pl.Float64)
    boxes = np.array(numbers.fill_null(np.nan).to_numpy())
    for place in np.flatnonzero(~np.isfinite(boxes).all(axis=1)):
        boxes[place] = parse_box(texts[place]) or np.nan
    return boxes


def rounded(values: np.ndarray, digits: int) -> np.ndarray:
    """Python's `round` of each value. NumPy's may err where a value lies about halfway."""
    small = np.abs(values) < 1e6
    found = np.round(np.where(small, values, 0.0), digits)
    halfway = np.abs(np.abs(values - found) - 0.5 * 10.0**-digits) < 1e-9
    unsure = np.isfinite(values) & (halfway | ~small)
    found[unsure] = [round(value, digits) for value in values[unsure].tolist()]
    return np.where(np.isfinite(values), found, values)


def known(frame: Frame | None) -> Frame:
    """The frame. Raises `UserError` if there is none."""
    if frame is None:
        raise UserError("the model's boxes have no coordinate format", "set `coordinates` in its block of `models`")
    return frame


def to_pixels(boxes: np.ndarray, frame: Frame, sizes: np.ndarray, resized: np.ndarray | None = None) -> np.ndarray:
    """Convert boxes (n, 4) from a model's coordinate format to pixels of images of `sizes` (n, 2).

    Sizes are (width, height). The formats (`frame`):
    `padded_square`: fractions of the square of the longer side, with the image centred (LLaVA-1.5).
    `original`: fractions of width and height.
    `resized_pixels`: pixels after the processor's resize to `resized` (n, 2) (Qwen2.5-VL).
    `thousand`: thousandths of width and height.
    Raises `ValueError` for `resized_pixels` without `resized`.
    """
    width_height = np.concatenate([sizes, sizes], axis=1)
    if frame == "original":
        return boxes * width_height
    if frame == "thousand":
        return boxes * width_height / 1000
    if frame == "padded_square":
        side = np.maximum(sizes[:, :1], sizes[:, 1:])
        padding = np.floor((side - sizes) / 2)
        return boxes * side - np.concatenate([padding, padding], axis=1)
    if resized is None:
        raise ValueError("frame `resized_pixels` needs the sizes after the processor's resize")
    return boxes * width_height / np.concatenate([resized, resized], axis=1)


def from_pixels(box: np.ndarray, frame: Frame, size: tuple[int, int], resized: tuple[int, int] | None) -> np.ndarray:
    """The inverse of `to_pixels` for one box (4,): pixels to a model's coordinate format."""
    sizes = np.array([size], dtype=float)
    resizes = None if resized is None else np.array([resized], dtype=float)
    zero = to_pixels(np.zeros((1, 4)), frame, sizes, resizes)
    one = to_pixels(np.ones((1, 4)), frame, sizes, resizes)
    return ((np.asarray(box, dtype=float) - zero) / (one - zero))[0]


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (n,) of boxes (n, 4) with `others` (n, 4); 0 if a box is inverted or empty."""
    width = np.minimum(boxes[:, 2], others[:, 2]) - np.maximum(boxes[:, 0], others[:, 0])
    height = np.minimum(boxes[:, 3], others[:, 3]) - np.maximum(boxes[:, 1], others[:, 1])
    intersection = np.clip(width, 0, None) * np.clip(height, 0, None)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others)]
    sane = is_box(boxes) & is_box(others)
    union = np.where(sane, areas[0] + areas[1] - intersection, 1.0)
    return np.where(sane, intersection / union, 0.0)


def is_box(boxes: np.ndarray) -> np.ndarray:
    """Whether each box (n, 4) has finite coordinates and a positive area: shape (n,), bool."""
    x1, y1, x2, y2 = boxes.T
    finite = np.isfinite(x1) & np.isfinite(y1) & np.isfinite(x2) & np.isfinite(y2)  # faster than all(axis=1)
    return finite & (x2 > x1) & (y2 > y1)
