"""Views: same pixels for the same recipe, and what each does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.showing import pictures_shown, shown, strength
from perceptune.core.views import VIEWS
from perceptune.core.views.noise import diffusion
from perceptune.core.views.view import Recipe, pixel_digest
from PIL import Image

BOX = (4.0, 2.0, 12.0, 10.0)


def picture(width: int = 20, height: int = 14) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def recipe(op: str, **parameters: object) -> Recipe:
    return Recipe(op, dict(parameters), 7, BOX if VIEWS[op].needs_box else None)


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
    """Digests written down once: a library that draws other pixels must not go unnoticed."""
    digests = {
        op: pixel_digest(shown(recipe(op, **parameters), [picture()]))[:12]
        for op, parameters in {"noise": {"sigma": 0.2}, "degraded": {}, "enhanced": {}, "blank": {}}.items()
    }
    digests["diffusion"] = pixel_digest(shown(recipe("noise", kind="diffusion", step=500), [picture()]))[:12]
    assert digests == DIGESTS


DIGESTS = {
    "noise": "47fe7c6a6614",
    "degraded": "073f3007143a",
    "enhanced": "66cc8c19ceda",
    "blank": "cb216b1a004c",
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
def test_degraded_fills_with_what_is_asked(fill: str) -> None:
    image = picture()
    (after,) = shown(recipe("degraded", fill=fill), [image])
    colours = after.crop((4, 2, 12, 10)).getcolors()
    single = {"grey": (127, 127, 127), "black": (0, 0, 0)}
    if fill in single:
        assert colours == [(64, single[fill])]
    assert after.crop((4, 2, 12, 10)).tobytes() != image.crop((4, 2, 12, 10)).tobytes()


@given(sigma=st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.4]), seed=st.integers(0, 2**62))
def test_gaussian_noise_has_the_strength_that_it_says(sigma: float, seed: int) -> None:
    """On mid-grey next to nothing is cut off up to 0.2; at 0.4 the recorded strength says how much less it was."""
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
    """c.10; the 0-based index takes step + 1 factors."""
    found = diffusion(step)
    assert found == (pytest.approx(kept, abs=5e-5), pytest.approx(sigma, abs=5e-5))
    assert (found[0] / found[1]) ** 2 == pytest.approx(snr, rel=2e-3)


def test_diffusion_is_laid_on_normalised_pixels() -> None:
    """Mid-grey, step 300: x = kept x0 + sigma noise in CLIP's units, so the mean shrinks and the spread is sigma x CLIP's."""
    grey = Image.new("RGB", (128, 128), (140, 140, 140))
    (after,) = shown(Recipe("noise", {"kind": "diffusion", "step": 300}, 0), [grey])
    pixels = np.asarray(after, dtype=float)[..., 0] / 255
    expected = 0.9810 * (140 / 255 - 0.48145466) + 0.48145466
    assert pixels.mean() == pytest.approx(expected, abs=2e-3)
    assert pixels.std() == pytest.approx(0.1941 * 0.26862954, rel=0.03)
