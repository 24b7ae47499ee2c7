"""The views `masked` and `semantic` blacken the cells that they say."""

import numpy as np
import pytest
from perceptune.core.views.apply import shown, strength
from perceptune.core.views.patch_saliency import Saliency
from perceptune.core.views.view import Recipe
from PIL import Image

from tests.plugins import VIEWS

from .pictures import picture


def black_cells(image: Image.Image, cell: int) -> np.ndarray:
    """Whether each cell is completely black, from the pixels of one cell at a time."""
    pixels = np.asarray(image)
    rows, columns = (-(-side // cell) for side in pixels.shape[:2])
    return np.array(
        [
            [not pixels[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell].any() for c in range(columns)]
            for r in range(rows)
        ]
    )


def test_mask_blackens_whole_cells_as_often_as_it_says() -> None:
    """448 x 448 has 32 x 32 cells, 614.4 of them black on average with standard deviation 15.7."""
    image = Image.new("RGB", (448, 448), (200, 100, 50))
    counts = []
    for seed in range(200):
        (after,) = shown(Recipe("masked", {"cell": 14, "share": 0.6}, seed), [image])
        black = black_cells(after, 14)
        assert black.shape == (32, 32)
        kept = np.asarray(after)[~black.repeat(14, 0).repeat(14, 1)]
        assert (kept == (200, 100, 50)).all()
        counts.append(black.sum())
    assert np.mean(counts) == pytest.approx(614.4, abs=4 * 15.7 / 200**0.5)
    assert np.std(counts) == pytest.approx(15.7, rel=0.2)


def test_mask_cuts_the_cells_at_the_edge() -> None:
    """450 x 450 has 33 x 33 cells, the last row and column 2 pixels wide."""
    image = Image.new("RGB", (450, 450), (255, 255, 255))
    (after,) = shown(Recipe("masked", {"share": 0.5}, 3), [image])
    dark = np.asarray(after)[..., 0] == 0
    assert (dark[:, 448] == dark[:, 449]).all()
    assert black_cells(after, 14).shape == (33, 33)
    assert {bool(v) for v in black_cells(after, 14)[:, 32]} == {True, False}


@pytest.mark.parametrize(("share", "seen"), [(0.0, 1.0), (1.0, 0.0)])
def test_mask_of_nothing_and_of_everything(share: float, seen: float) -> None:
    image = Image.new("RGB", (30, 30), (9, 9, 9))
    how = Recipe("masked", {"share": share}, 0)
    after = shown(how, [image])
    assert (np.asarray(after[0]) == 9).mean() == seen
    assert strength(how, [image], after) == 1 - seen


@pytest.mark.parametrize("size", [(20, 14), (45, 31), (2, 1), (64, 64)])
def test_semantic_mask_blackens_the_cells_that_it_names(size: tuple[int, int]) -> None:
    """Pixel by pixel: (x, y) is in row y x rows / height and column x x columns / width, rounded
    down.
    """
    image, (rows, columns), cells = picture(*size), (4, 5), {0, 7, 13, 19}
    how = Recipe("semantic", {"grid": [rows, columns], "cells": [sorted(cells)]})
    (after,) = shown(how, [image])
    for y in range(image.height):
        for x in range(image.width):
            cell = int(y * rows / image.height) * columns + int(x * columns / image.width)
            assert after.getpixel((x, y)) == ((0, 0, 0) if cell in cells else image.getpixel((x, y))), (x, y)


def test_semantic_mask_takes_what_stands_out_of_every_picture() -> None:
    saliency = Saliency((2, 2), [[0.1, 0.9, 0.5, 0.4], [0.9, 0.1, 0.1, 0.2]])
    view = VIEWS["semantic"]
    settled = view.settled(view.Parameters.model_validate({"share": 0.6}), saliency)
    assert settled == {"share": 0.6, "grid": [2, 2], "cells": [[1, 2], [0, 3]]}  # floor(0.6 x 4) = 2 each
    how = Recipe("semantic", settled)
    assert Recipe.read(how.text()) == how
    white = Image.new("RGB", (2, 2), (255, 255, 255))
    after = shown(how, [white, white])
    assert [(np.asarray(one)[..., 0] == 0).astype(int).tolist() for one in after] == [
        [[0, 1], [1, 0]],
        [[1, 0], [0, 1]],
    ]
    with pytest.raises(ValueError, match="view `semantic`: 1 images, expected 2"):
        shown(how, [white])


@pytest.mark.parametrize(("share", "black"), [(0.0, 0.0), (0.25, 0.25), (0.49, 0.25), (1.0, 1.0)])
def test_semantic_mask_of_nothing_and_of_everything(share: float, black: float) -> None:
    view = VIEWS["semantic"]
    settled = view.settled(view.Parameters.model_validate({"share": share}), Saliency((2, 2), [[1.0, 2.0, 3.0, 4.0]]))
    image = Image.new("RGB", (30, 30), (9, 9, 9))
    after = shown(Recipe("semantic", settled), [image])
    assert (np.asarray(after[0]) == 0).mean() == black
    assert strength(Recipe("semantic", settled), [image], after) == black
