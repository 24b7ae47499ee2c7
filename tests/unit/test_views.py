"""Views: the same pixels for the same recipe, and the effect of each view."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.views.apply import pictures_shown, shown, strength
from perceptune.core.views.noise import diffusion
from perceptune.core.views.patch_saliency import Saliency
from perceptune.core.views.view import Recipe, pixel_digest
from PIL import Image
from pydantic import ValidationError

from tests.plugins import VIEWS

BOX = (4.0, 2.0, 12.0, 10.0)


def picture(width: int = 20, height: int = 14) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def recipe(op: str, pictures: int = 1, **parameters: object) -> Recipe:
    salient: dict[str, object] = {"grid": [2, 3], "cells": [[0, 4, 5]] * pictures} if VIEWS[op].needs_saliency else {}
    return Recipe(op, {**salient, **parameters}, 7, BOX if VIEWS[op].needs_box else None)


def test_original_changes_nothing() -> None:
    image = picture()
    assert shown(recipe("original"), [image])[0].tobytes() == image.tobytes()


def test_blank_keeps_size_and_number_and_shows_nothing() -> None:
    blank = shown(recipe("blank"), [picture(8, 4), picture(3, 9)])
    assert [i.size for i in blank] == [(8, 4), (3, 9)]
    assert {colour for i in blank for _, colour in i.getcolors()} == {(127, 127, 127)}


@pytest.mark.parametrize("op", sorted(VIEWS))
def test_no_view_changes_its_input_and_each_is_reproducible(op: str) -> None:
    image = picture()
    before = image.tobytes()
    first, second = shown(recipe(op), [image]), shown(Recipe.read(recipe(op).text()), [image])
    assert image.tobytes() == before
    assert pixel_digest(first) == pixel_digest(second)
    assert len(first) == pictures_shown(recipe(op), 1)
    assert shown(recipe(op), []) == []


def test_the_pixels_are_the_same_on_every_machine() -> None:
    """Recorded digests, so that a library that changes the pixels does not go unnoticed."""
    settings: dict[str, dict[str, object]] = {
        "noise": {"sigma": 0.2}, "perspective": {"probability": 1.0}, "rotation": {"degrees": 90}, "masked": {"cell": 3}
    }  # fmt: skip
    digests = {
        op: pixel_digest(shown(recipe(op, **settings.get(op, {})), [picture()]))[:12]
        for op in VIEWS
        if op != "original"
    }
    digests["diffusion"] = pixel_digest(shown(recipe("noise", kind="diffusion", step=500), [picture()]))[:12]
    assert digests == DIGESTS


DIGESTS = {
    "blank": "cb216b1a004c",
    "blur": "e7ed8cef4854",
    "degraded": "073f3007143a",
    "enhanced": "66cc8c19ceda",
    "jitter": "073bd22f80c1",
    "masked": "e120445eb75e",
    "motion_blur": "5ca722e0e20d",
    "noise": "47fe7c6a6614",
    "perspective": "96c0e24a2ffa",
    "random_crop": "a4525f188100",
    "rectangles": "2b83b5511af3",
    "rotation": "c23d5c75d5fc",
    "semantic": "1a49556ec2a9",
    "zoom": "55bf35daca5b",
    "diffusion": "086d0d6d1404",
}


def test_enhanced_shows_the_crop_as_a_second_image() -> None:
    image = picture()
    first, second = shown(recipe("enhanced"), [image])
    assert first.tobytes() == image.tobytes()
    assert second.tobytes() == image.crop((4, 2, 12, 10)).tobytes()
    assert strength(recipe("enhanced"), [image], [first, second]) == pytest.approx(64 / 280)


@pytest.mark.parametrize(("edge", "erased"), [("exclusive", 64), ("inclusive", 81)])
def test_degraded_erases_the_box_and_nothing_else(edge: str, erased: int) -> None:
    image = picture()
    (after,) = shown(recipe("degraded", edge=edge), [image])
    changed = (np.asarray(after) != np.asarray(image)).any(axis=2)
    mean = tuple(np.asarray(image).reshape(-1, 3).mean(axis=0).astype(int))
    side = 8 if edge == "exclusive" else 9
    assert (np.asarray(after)[2 : 2 + side, 4 : 4 + side] == mean).all()
    outside = np.ones(changed.shape, dtype=bool)
    outside[2 : 2 + side, 4 : 4 + side] = False
    assert not changed[outside].any()
    assert erased == side * side


@pytest.mark.parametrize("fill", ["mean", "grey", "black", "blur"])
def test_degraded_uses_the_requested_fill(fill: str) -> None:
    image = picture()
    (after,) = shown(recipe("degraded", fill=fill), [image])
    colours = after.crop((4, 2, 12, 10)).getcolors()
    single = {"grey": (127, 127, 127), "black": (0, 0, 0)}
    if fill in single:
        assert colours == [(64, single[fill])]
    assert after.crop((4, 2, 12, 10)).tobytes() != image.crop((4, 2, 12, 10)).tobytes()


@given(sigma=st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.4]), seed=st.integers(0, 2**62))
def test_gaussian_noise_has_the_strength_that_it_says(sigma: float, seed: int) -> None:
    """On mid-grey almost nothing is clipped up to 0.2; at 0.4, the recorded strength shows the
    loss.
    """
    grey = Image.new("RGB", (64, 64), (127, 127, 127))
    how = Recipe("noise", {"sigma": sigma}, seed)
    found = strength(how, [grey], shown(how, [grey]))
    if sigma <= 0.2:
        assert found == pytest.approx(sigma, rel=0.05, abs=1e-9)
    else:
        assert found < sigma


def test_another_seed_draws_other_noise_and_every_image_its_own() -> None:
    one, other = (shown(Recipe("noise", {"sigma": 0.2}, seed), [picture(), picture()]) for seed in (1, 2))
    assert one[0].tobytes() != one[1].tobytes() != other[1].tobytes() != other[0].tobytes()


def test_noise_can_be_laid_on_at_the_size_that_the_model_sees() -> None:
    how = Recipe("noise", {"sigma": 0.1, "side": 10}, 0)
    assert shown(how, [picture(20, 14)])[0].size == (10, 7)


@pytest.mark.parametrize(
    ("step", "kept", "sigma", "snr"),
    [(100, 0.9983, 0.0584, 292), (300, 0.9810, 0.1941, 25.5), (500, 0.8630, 0.5052, 2.918), (600, 0.7342, 0.6789, 1.170), (999, 0.2850, 0.9585, 0.0884)],
)  # fmt: skip
def test_diffusion_schedule(step: int, kept: float, sigma: float, snr: float) -> None:
    """The 0-based index takes step + 1 factors."""
    found = diffusion(step)
    assert found == (pytest.approx(kept, abs=5e-5), pytest.approx(sigma, abs=5e-5))
    assert (found[0] / found[1]) ** 2 == pytest.approx(snr, rel=2e-3)


def test_diffusion_is_laid_on_normalised_pixels() -> None:
    """Mid-grey, step 300: x = kept x0 + sigma noise in CLIP units: smaller mean, spread sigma x
    CLIP's.
    """
    grey = Image.new("RGB", (128, 128), (140, 140, 140))
    (after,) = shown(Recipe("noise", {"kind": "diffusion", "step": 300}, 0), [grey])
    pixels = np.asarray(after, dtype=float)[..., 0] / 255
    expected = 0.9810 * (140 / 255 - 0.48145466) + 0.48145466
    assert pixels.mean() == pytest.approx(expected, abs=2e-3)
    assert pixels.std() == pytest.approx(0.1941 * 0.26862954, rel=0.03)


@pytest.mark.parametrize(
    "op", sorted(op for op, view in VIEWS.items() if view.keeps_size(view.Parameters()) and not view.needs_box)
)
@pytest.mark.parametrize("size", [(20, 14), (1, 1), (3, 50), (450, 337)])
def test_views_that_keep_sizes_keep_them(op: str, size: tuple[int, int]) -> None:
    images = [picture(*size), picture(5, 7)]
    assert [i.size for i in shown(recipe(op, pictures=2), images)] == [size, (5, 7)]


def test_a_view_that_breaks_its_word_on_sizes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VIEWS["zoom"], "apply", lambda images, *_: [i.crop((0, 0, 2, 2)) for i in images])
    with pytest.raises(ValueError, match=r"`zoom` changed sizes \[\(20, 14\)\] to \[\(2, 2\)\]"):
        shown(recipe("zoom"), [picture()])


SEEDED = sorted(op for op, view in VIEWS.items() if view.seeded)


@pytest.mark.parametrize("op", SEEDED)
def test_another_seed_shows_another_picture(op: str) -> None:
    parameters = {"perspective": {"probability": 1.0}, "rotation": {"degrees": 90}}.get(op, {})
    found = {shown(Recipe(op, parameters, seed), [picture(60, 40)])[0].tobytes() for seed in range(8)}
    assert len(found) == 8


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
    with pytest.raises(ValidationError, match=r"`smallest` 0\.5 exceeds `largest` 0\.2"):
        VIEWS["random_crop"].Parameters.model_validate({"smallest": 0.5})


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
