"""Motion blur against sampling along the line, and its direction."""

import numpy as np
import pytest
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from PIL import Image
from scipy.ndimage import map_coordinates


@pytest.mark.parametrize(("length", "angle"), [(1, 30.0), (5, 0.0), (6, 90.0), (9, 45.0), (15, 20.0), (4, -70.0)])
def test_motion_blur_is_the_mean_along_a_line(length: int, angle: float) -> None:
    """Each pixel sampled at points one pixel apart, by interpolation in the image mirrored at its
    edges."""
    noise = np.random.default_rng(0).integers(0, 256, (31, 40, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    (after,) = shown(Recipe("motion_blur", {"length": length, "angle": angle}), [image])
    pixels = np.asarray(image, dtype=float)
    rows, columns = np.mgrid[: image.height, : image.width].astype(float)
    expected = np.zeros(pixels.shape)
    for t in np.arange(length) - (length - 1) / 2:
        at = [rows - t * np.sin(np.radians(angle)), columns + t * np.cos(np.radians(angle))]
        for channel in range(3):
            expected[..., channel] += map_coordinates(pixels[..., channel], at, order=1, mode="mirror") / length
    assert np.abs(np.asarray(after) - expected).max() <= 0.5 + 1e-6


def test_motion_blur_moves_to_the_right_and_up() -> None:
    dot = Image.new("RGB", (9, 9))
    dot.putpixel((4, 4), (255, 255, 255))
    (along,) = shown(Recipe("motion_blur", {"length": 5}), [dot])
    assert np.asarray(along)[4, :, 0].tolist() == [0, 0, 51, 51, 51, 51, 51, 0, 0]
    (up,) = shown(Recipe("motion_blur", {"length": 5, "angle": 45}), [dot])
    bright = np.argwhere(np.asarray(up)[..., 0] > 0)
    assert {(2, 2), (6, 6)}.isdisjoint(map(tuple, bright.tolist()))
    assert np.corrcoef(bright.T)[0, 1] < -0.7  # lower rows, further to the right
