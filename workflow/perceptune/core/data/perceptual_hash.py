"""Perceptual hashes of images: near duplicates are found by comparing them.

Two copies of an image that were encoded, resized or cropped differently have different files but
nearly the same hash. It has two parts: the 256 bits of ImageHash's `phash` (signs of the low
frequencies of the grey image) and the mean colours of a 4 x 4 grid. The first part alone calls a red
and a blue circle at the same place equal, the second alone any two photographs of snow.

Measured on 32 million pairs of different drawings of the demo, 6 million of drawn diagrams, bar
charts and pages of text, and 500,000 of synthetic photographs: 4 pairs are within both limits, all of
them short words or bar charts that look alike. Copies of 507 images as JPEG (quality 25 to 90), WebP, or
with 25 % to 200 % of the size are within both limits, except for one small screenshot at 25 %;
nearly all are within 14 bits and 11 levels. Of copies without 1 % of each side, 97 % are within the
limits, without 2 % a quarter, and without 5 % none. Brighter copies are other images.
`tests/unit/test_perceptual_hash.py` repeats a part of this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 16
"""Rows and columns of the frequencies; `phash` has one bit for each."""
GRID = 4
"""Rows and columns of the mean colours."""
BITS_BYTES = SIDE * SIDE // 8
MOST_BITS = 24
"""Near duplicates differ in at most so many of the 256 bits."""
MOST_LEVELS = 24
"""The mean colours of near duplicates differ by at most so many of 255 levels."""
LEAST_CONTRAST = 3.0
"""Grey levels. Below it, an image is nearly uniform, and noise decides on its bits: two blank pages
would be near duplicates."""


def perceptual_hash(image: Image.Image) -> bytes:
    """The hash of an RGB image: 32 bytes of bits and 48 bytes of mean colours.

    Empty for an image that shows too little: one colour, a gradient, stripes, a single word on a page.
    """
    import imagehash

    thumbnail = image.resize((4 * SIDE, 4 * SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    grey = thumbnail.convert("L")
    if _contrast(np.asarray(grey, dtype=float)) < LEAST_CONTRAST:
        return b""
    bits = imagehash.phash(grey, hash_size=SIDE).hash
    colours = np.asarray(thumbnail.resize((GRID, GRID), Image.Resampling.BOX))
    return np.packbits(bits).tobytes() + colours.tobytes()


def _contrast(grey: np.ndarray) -> float:
    """Standard deviation of the grey values without what rows and columns have in common, since
    gradients and stripes have too few frequencies to tell them apart."""
    rows, columns = grey.mean(axis=1, keepdims=True), grey.mean(axis=0, keepdims=True)
    return float((grey - rows - columns + grey.mean()).std())


class Hashes:
    """Hashes of images, none of them empty, in the layout that comparisons need."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        found = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), BITS_BYTES + 3 * GRID**2)
        self._bits = np.ascontiguousarray(found[:, :BITS_BYTES]).view(np.uint64)
        self._colours = np.ascontiguousarray(found[:, BITS_BYTES:])

    def __len__(self) -> int:
        return len(self._bits)

    def near(self, start: int, stop: int, others: Hashes, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the images from `start` to `stop` and of their near duplicates from `first` to
        `last` of `others`, as two arrays of equal length. Memory grows with the product of both."""
        bits, other_bits = self._bits[start:stop], others._bits[first:last]
        # hardly any unrelated pair passes the first two of the four words
        half = sum(np.bitwise_count(bits[:, word, None] ^ other_bits[None, :, word]) for word in (0, 1))
        mine, theirs = np.divmod(np.flatnonzero(half <= MOST_BITS), max(len(other_bits), 1))
        differing = np.bitwise_count(bits[mine] ^ other_bits[theirs]).sum(axis=1, dtype=np.uint16)
        mine, theirs = start + mine[differing <= MOST_BITS], first + theirs[differing <= MOST_BITS]
        levels = self._colours[mine].astype(np.int16) - others._colours[theirs]
        close = np.abs(levels).max(axis=1, initial=0) <= MOST_LEVELS
        return mine[close], theirs[close]
