"""Patch saliency: the attention that patches receive, and the most salient cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.views.patch_saliency import received, salient_cells


@pytest.mark.parametrize("specials", [1, 5])
def test_patches_receive_what_patches_give(specials: int) -> None:
    random = np.random.default_rng(0)
    attention = random.dirichlet(np.ones(9 + specials), (3, 9 + specials))  # rows sum to 1, as after a softmax
    found = received(attention, specials)
    for image in range(3):
        for patch in range(9):
            total = 0.0
            for sender in range(9):
                total += attention[image, specials + sender, specials + patch]
            assert found[image, patch] == pytest.approx(total)


def test_the_sum_written_out() -> None:
    """CLS and two patches: patch 1 receives 0.3 from itself and 0.6 from the other, whatever CLS
    attends to.
    """
    attention = np.array([[0.0, 1.0, 0.0], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    assert received(attention) == pytest.approx([0.9, 0.5])


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]), min_size=1, max_size=30), st.integers(0, 100))
def test_the_most_salient_cells_are_taken(saliency: list[float], percent: int) -> None:
    """Brute force: repeatedly take the first of the largest remaining."""
    left, expected = dict(enumerate(saliency)), []
    for _ in range(percent * len(saliency) // 100):
        best = next(cell for cell, value in left.items() if value == max(left.values()))
        expected.append(best)
        del left[best]
    assert salient_cells(saliency, percent / 100) == sorted(expected)


def test_a_share_counts_as_it_is_written() -> None:
    assert int(0.29 * 100) == 28  # what a plain product gives
    assert len(salient_cells([1.0] * 100, 0.29)) == 29
    assert len(salient_cells([1.0] * 256, 0.6)) == 153  # floor(153.6): 16 x 16 patches, N = 257 tokens
