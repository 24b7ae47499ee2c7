"""Tolerances between two implementations of the same log-probs."""

import math

import pytest
from perceptune.core.parity import TOLERANCES, Difference, Tolerance, difference, disagreement, lost


def test_differences_are_means_and_maxima_of_absolute_gaps() -> None:
    # gaps 0.5, 0.25, 0: mean 0.25, largest 0.5
    assert difference([-1.0, -2.0, -3.0], [-1.5, -1.75, -3.0]) == Difference(0.25, 0.5)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Difference(0.01, 0.1), None),
        (Difference(0.02, 0.1), "mean difference 0.02 nats, expected at most 0.01"),
        (Difference(0.01, 0.2), "largest difference 0.2 nats, expected at most 0.1"),
        (Difference(math.nan, math.nan), "mean difference nan nats"),
    ],
)
def test_a_limit_is_inclusive_and_no_number_passes_none(found: Difference, words: str | None) -> None:
    message = disagreement(found, Tolerance(0.01, 0.1))
    assert message is None if words is None else message is not None and words in message


def test_half_of_the_adapters_effect_may_be_lost() -> None:
    effect = Difference(0.02, 1.0)
    assert lost(Difference(0.01, 0.5), effect) is None
    assert "at most 50% of the adapter's effect of 0.02 nats" in str(lost(Difference(0.0101, 0.5), effect))
    assert lost(effect, effect) is not None  # the base itself, without the adapter
    assert lost(Difference(0.0, 0.0), Difference(0.0, 0.0)) is None  # an adapter without effect
    assert lost(Difference(math.nan, 1.0), effect) is not None


def test_fewer_bits_are_given_more_room() -> None:
    assert TOLERANCES["float32"] < TOLERANCES["float16"] < TOLERANCES["bfloat16"]
