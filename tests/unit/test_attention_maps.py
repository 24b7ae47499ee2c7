"""Attention maps in image coordinates, and the attention focus ratio."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.views.attention_maps import attention_focus_ratio, coverage, on_image

MAP = np.array([[0.1, 0.2, 0.1, 0], [0.1, 0.8, 0.6, 0.1], [0, 0.7, 0.9, 0.1], [0.1, 0.1, 0.1, 0]])


def test_afr_vector() -> None:
    """Mean attention .75 inside, .08333 outside."""
    assert attention_focus_ratio(MAP, (400, 400), (100, 100, 300, 300)) == pytest.approx(9.0)


def test_afr_of_a_box_that_cuts_cells() -> None:
    """Against a map with 100 x 100 times finer cells, none of which the box cuts."""
    fine = np.kron(MAP, np.ones((100, 100)))
    box = (130.0, 70.0, 290.0, 310.0)
    assert attention_focus_ratio(MAP, (400, 400), box) == pytest.approx(attention_focus_ratio(fine, (400, 400), box))


@pytest.mark.parametrize("box", [(0, 0, 400, 400), (50, 50, 50, 90)])
def test_afr_needs_an_inside_and_an_outside(box: tuple[float, ...]) -> None:
    assert attention_focus_ratio(MAP, (400, 400), box) is None  # type: ignore[arg-type]


def test_afr_without_attention_outside() -> None:
    inside = np.zeros((4, 4))
    inside[1:3, 1:3] = 1
    assert attention_focus_ratio(inside, (400, 400), (100, 100, 300, 300)) is None


def test_a_grid_on_the_whole_image_stays_as_it_is() -> None:
    assert np.allclose(on_image(MAP, (0, 0, 640, 480), (640, 480)), MAP)


def test_padding_is_dropped() -> None:
    """640 x 480 padded to 640 x 640: 24 rows of 26.7 pixels, of which 3 above and 3 below are
    padding.
    """
    attention = np.random.default_rng(0).random((24, 24))
    found = on_image(attention, (0, -80, 640, 560), (640, 480))
    assert found.shape == (18, 24)
    assert np.allclose(found, attention[3:21])


def test_what_was_cut_away_has_no_attention() -> None:
    """The middle 480 x 480 of 640 x 480: 24 cells of 20 pixels, four empty columns on both sides."""
    attention = np.random.default_rng(0).random((24, 24))
    found = on_image(attention, (80, 0, 560, 480), (640, 480))
    assert found.shape == (24, 32)
    assert np.allclose(found[:, 4:28], attention)
    assert not found[:, :4].any()
    assert not found[:, 28:].any()


@given(width=st.integers(20, 700), height=st.integers(20, 700))
def test_attention_is_neither_made_nor_lost_on_the_image(width: int, height: int) -> None:
    """Uniform attention on a padded square: the image gets attention in proportion to its area."""
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    found = on_image(np.ones((24, 24)), (-left, -top, side - left, side - top), (width, height))
    assert found.sum() == pytest.approx(576 * width * height / side**2)


def test_coverage_counts_parts_of_cells() -> None:
    found = coverage((2, 2), (100, 100), (25, 0, 75, 100))
    assert np.allclose(found, 0.5)
