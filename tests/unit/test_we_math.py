"""We-Math's strict score: the dossier's vector (TV12) and its ends."""

import pytest
from perceptune.core.metrics import we_math_strict


def test_the_dossiers_vector() -> None:
    """525 problems, of which half of 100 count as lost, and 50 and 200 in full."""
    assert we_math_strict(100, 50, 200) == (525 - 50 - 50 - 200) / 525 == pytest.approx(0.428571, abs=5e-7)


def test_all_and_nothing_mastered() -> None:
    assert we_math_strict(0, 0, 0) == 1
    assert we_math_strict(0, 25, 500) == 0
