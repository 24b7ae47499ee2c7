"""Gaussian noise and the noise of diffusion have the strength that they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.views.apply import shown, strength
from perceptune.core.views.noise import diffusion
from perceptune.core.views.view import Recipe
from PIL import Image

from .pictures import picture


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
