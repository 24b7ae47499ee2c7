"""Augmentations: jitter, perspective, rotation, blur, rectangles, random crop and zoom."""

import numpy as np
import pytest
from perceptune.core.views.apply import shown, strength
from perceptune.core.views.view import Recipe
from PIL import Image
from pydantic import ValidationError

from tests.plugins import VIEWS

from .pictures import picture, recipe


def test_jitter_without_room_changes_nothing_and_keeps_to_its_range() -> None:
    fixed = dict.fromkeys([f"{k}_{e}" for k in ("brightness", "contrast", "saturation") for e in ("low", "high")], 1.0)
    assert shown(recipe("jitter", **fixed), [picture()])[0].tobytes() == picture().tobytes()
    grey = Image.new("RGB", (8, 8), (100, 100, 100))  # without contrast and colour, only the brightness can change
    values = [np.asarray(shown(Recipe("jitter", {}, seed), [grey])[0])[0, 0, 0] for seed in range(200)]
    assert 19 <= min(values) < 30
    assert 120 < max(values) <= 130


def test_perspective_is_the_identity_as_often_as_it_says() -> None:
    same = [
        shown(Recipe("perspective", {}, seed), [picture()])[0].tobytes() == picture().tobytes() for seed in range(400)
    ]
    assert np.mean(same) == pytest.approx(0.5, abs=0.1)


def test_perspective_moves_corners_inwards_by_a_tenth_at_most() -> None:
    white = Image.new("RGB", (200, 100), (255, 255, 255))
    for seed in range(50):
        (after,) = shown(Recipe("perspective", {"probability": 1.0}, seed), [white])
        pixels = np.asarray(after)[..., 0]
        assert (pixels[11:89, 21:179] > 250).all()
        assert (pixels < 5).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1)])
def test_perspective_leaves_an_image_of_one_pixel_width_or_height_as_it_is(size: tuple[int, int]) -> None:
    """Its corners coincide, so that no transform is determined by them."""
    for seed in range(5):
        (after,) = shown(Recipe("perspective", {"probability": 1.0}, seed), [picture(*size)])
        assert after.tobytes() == picture(*size).tobytes()


def test_rotation_keeps_to_its_angle() -> None:
    """A line through the middle of an image: the shift of its end shows the angle of rotation."""
    line = Image.new("RGB", (201, 201))
    line.paste((255, 255, 255), (0, 100, 201, 101))
    angles = []
    for seed in range(100):
        (after,) = shown(Recipe("rotation", {}, seed), [line])
        column = np.asarray(after, dtype=float)[:, 180, 0]
        angles.append(np.degrees(np.arctan2((column * np.arange(201)).sum() / column.sum() - 100, 80)))
    assert 8 < max(np.abs(angles)) <= 10.3
    assert min(angles) < 0 < max(angles)


def test_rotation_is_torchvisions_with_its_default_settings() -> None:
    from torchvision.transforms.functional import rotate

    for seed in range(5):
        angle = np.random.default_rng(seed).uniform(-10, 10)
        (after,) = shown(Recipe("rotation", {}, seed), [picture(60, 45)])
        assert after.tobytes() == rotate(picture(60, 45), angle).tobytes()


def test_blur_is_a_gaussian_of_three_pixels() -> None:
    dot = Image.new("RGB", (5, 5))
    dot.putpixel((2, 2), (255, 255, 255))
    (after,) = shown(recipe("blur"), [dot])
    kernel = np.exp(-0.5 * np.arange(-1, 2) ** 2.0)
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = np.outer(kernel, kernel) / kernel.sum() ** 2 * 255
    assert (np.asarray(after)[..., 0] == np.rint(expected)).all()


def sides_of_a_rectangle(seed: int) -> tuple[int, int]:
    grey = Image.new("RGB", (19, 19), (255, 255, 255))
    (after,) = shown(Recipe("rectangles", {"count": 1}, seed), [grey])
    changed = (np.asarray(after) != 255).any(axis=2)
    return int(changed.any(axis=0).sum()), int(changed.any(axis=1).sum())


def test_rectangles_cover_what_is_expected_of_them() -> None:
    """50 rectangles of 5 to 15 % of each side cover about 40 % of the image."""
    grey = Image.new("RGB", (200, 160), (7, 7, 7))
    found = [
        strength(how, [grey], shown(how, [grey])) for how in (Recipe("rectangles", {}, seed) for seed in range(100))
    ]
    assert np.mean(found) == pytest.approx(0.4, abs=0.04)
    sides = [side for how in range(100) for side in sides_of_a_rectangle(how)]
    assert set(sides) == {1, 2}  # of 19 x 19 pixels, 0.95 to 2.85
    noise = np.concatenate([np.asarray(shown(Recipe("rectangles", {}, seed), [grey])[0]).ravel() for seed in range(9)])
    assert (noise.min(), noise.max()) == (0, 254)
    none = Recipe("rectangles", {"count": 0}, 0)
    assert shown(none, [grey])[0].tobytes() == grey.tobytes()


def test_random_crop_shows_as_small_a_part_as_it_says() -> None:
    """An image whose pixels encode their position: the crop lies inside and has an area and shape
    in range.
    """
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    where = Image.fromarray(np.stack([x, y * 2, 0 * x], axis=2).astype(np.uint8))
    areas, ratios = [], []
    for seed in range(200):
        (after,) = shown(Recipe("random_crop", {"smallest": 0.05, "largest": 0.2}, seed), [where])
        pixels = np.asarray(after).astype(int)
        width, height = (np.ptp(pixels[..., channel]) / scale + 1 for channel, scale in ((0, 1), (1, 2)))
        areas.append(width * height / 20_000)
        ratios.append(width / height)
    assert 0.04 < min(areas) < 0.07
    assert 0.18 < max(areas) < 0.22
    assert np.mean(areas) == pytest.approx(0.125, abs=0.01)
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.43
    assert np.median(ratios) == pytest.approx(1, abs=0.05)


def test_random_crop_of_everything_fits_into_any_picture() -> None:
    """The whole area: a side that would be too long is limited, also for a narrow image."""
    for size in ((200, 3), (1, 90), (1, 1)):
        (after,) = shown(Recipe("random_crop", {"smallest": 1.0, "largest": 1.0}, 0), [picture(*size)])
        assert after.size == size


def test_zoom_shows_a_part_that_is_there() -> None:
    """An image whose pixels encode their position: the crop lies inside and covers 60 to 70 % of
    each side.
    """
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    where = Image.fromarray(np.stack([x, y * 2, 0 * x], axis=2).astype(np.uint8))
    for seed in range(50):
        after = np.asarray(shown(Recipe("zoom", {}, seed), [where])[0]).astype(int)
        for channel, side in ((0, 200), (1, 200)):
            span = after[..., channel].max() - after[..., channel].min()
            assert 0.58 * side <= span <= 0.71 * side
    whole = Recipe("zoom", {"smallest": 1.0, "largest": 1.0}, 0)
    assert shown(whole, [where])[0].tobytes() == where.tobytes()


@pytest.mark.parametrize("seed", [3, 15, 18])
def test_zoom_rounds_down_and_shows_nothing_around_the_crop(seed: int) -> None:
    """The sides of these seeds' crops are nearer to the next larger whole number."""
    generator = np.random.default_rng(seed)
    scale = generator.uniform(0.6, 0.7)
    width, height = int(200 * scale), int(100 * scale)
    assert (round(200 * scale), round(100 * scale)) == (width + 1, height + 1)
    left, top = int(generator.integers(0, 201 - width)), int(generator.integers(0, 101 - height))
    expected = picture(200, 100).crop((left, top, left + width, top + height)).resize((200, 100), Image.BILINEAR)
    assert shown(Recipe("zoom", {}, seed), [picture(200, 100)])[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("op", "parameters", "message"),
    [
        ("random_crop", {"smallest": 0.5}, r"`smallest` 0\.5 exceeds `largest` 0\.2"),
        ("rectangles", {"smallest": 0.2}, r"`smallest` 0\.2 exceeds `largest` 0\.15"),
        ("zoom", {"largest": 0.5}, r"`smallest` 0\.6 exceeds `largest` 0\.5"),
        ("jitter", {"contrast_low": 2}, r"`contrast_low` 2 exceeds `contrast_high` 1\.8"),
    ],
)
def test_a_range_with_its_ends_swapped_is_refused(op: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VIEWS[op].Parameters.model_validate(parameters)
