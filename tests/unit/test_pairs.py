"""The filter of pairs and the statistics of P2-DPO's tables."""

import math

import numpy as np
import pytest
from perceptune.core.preferences.pair_filter import (
    central_limits,
    clip_statistics,
    described,
    pair_statistics,
    perplexity,
    rejection,
)

LIMITS = (-0.174, 0.208)


@pytest.mark.parametrize(
    ("chosen", "rejected", "ppl", "margin", "reason"),
    [
        (-0.5653, -0.5822, (1.76, 1.79), 0.0169, None),
        (-0.3365, -0.5878, (1.40, 1.80), 0.2513, "margin"),
        (-0.70, -0.92, (2.0138, 2.5093), 0.22, "perplexity"),
        (-0.60, -0.40, (1.8221, 1.4918), -0.20, "margin"),
        (-0.60, -0.774, (1.8221, 2.1684), 0.174, None),
    ],
)
def test_vectors(chosen: float, rejected: float, ppl: tuple[float, float], margin: float, reason: str | None) -> None:
    found = perplexity(chosen), perplexity(rejected)
    assert found == (pytest.approx(ppl[0], abs=5e-3), pytest.approx(ppl[1], abs=5e-3))
    assert chosen - rejected == pytest.approx(margin)
    assert rejection(*found, chosen - rejected, 2.5, LIMITS) == reason


@pytest.mark.parametrize(
    ("ppl", "margin", "reason"), [(2.5, 0.0, "perplexity"), (2.4999, -0.174, None), (2.0, 0.208, None)]
)
def test_limits_are_strict_for_perplexity_and_inclusive_for_the_margin(
    ppl: float, margin: float, reason: str | None
) -> None:
    assert rejection(ppl, 1.0, margin, 2.5, LIMITS) == reason


def test_rounding_does_not_drop_what_lies_on_the_limit() -> None:
    assert rejection(1.0, 1.0, -0.9 + 0.726, 2.5, LIMITS) is None  # -0.17400000000000004


def test_impossible_answers_are_rejected_not_fatal() -> None:
    """exp(710) exceeds the largest float64."""
    assert perplexity(-709.0) == pytest.approx(math.exp(709.0))
    assert perplexity(-710.0) == perplexity(-math.inf) == math.inf
    assert rejection(1.5, perplexity(-710.0), 0.0, 2.5, None) == "perplexity"
    nan = perplexity(math.nan)
    assert rejection(nan, 1.5, 0.0, 2.5, None) == rejection(1.5, nan, 0.0, 2.5, None) == "perplexity"
    found = described([1.5, math.inf])
    assert found is not None
    assert found["mean"] == math.inf


def test_without_limits_everything_passes() -> None:
    assert rejection(1e9, 1e9, -7.0, None, None) is None


def test_sums_would_reject_what_means_keep() -> None:
    """60 and 55 tokens: the sums give a margin of -1.9, the means 0.0169."""
    assert rejection(1.76, 1.79, 60 * -0.5653 - 55 * -0.5822, 2.5, LIMITS) == "margin"


def test_central_limits_leave_out_the_tails() -> None:
    margins = list(range(1001))
    assert central_limits(margins, 0.95) == (pytest.approx(25), pytest.approx(975))
    assert central_limits(margins, 1.0) == (0, 1000)


def test_described_is_table_5() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    assert described(values) == {
        "n": 5, "mean": 4.0, "sd": pytest.approx(np.std(values, ddof=1)), "min": 1.0, "q1": 2.0, "median": 3.0, "q3": 4.0, "max": 10.0,
    }  # fmt: skip
    assert described([]) is None


def test_pair_statistics_count_by_reason() -> None:
    def pair(margin: float | None, ips: float | None, kept: bool, reason: str | None) -> dict[str, object]:
        return {"ppl_chosen": 1.5, "ppl_rejected": 1.6, "margin": margin, "ips": ips, "kept": kept, "reason": reason}

    pairs = [
        pair(0.1, 3.0, True, None), pair(0.0, -1.0, True, None), pair(0.9, -2.0, False, "margin"),
        pair(0.0, None, False, "identical answers"), pair(None, None, False, "empty answer"),
    ]  # fmt: skip
    found = pair_statistics(pairs)
    assert (found["pairs"], found["kept"]) == (5, 2)
    assert found["dropped"] == {"margin": 1, "identical answers": 1, "empty answer": 1}
    assert found["before"]["margin"]["n"] == 3
    assert found["after"]["margin"]["n"] == 2
    assert found["negative_ips"] == {"before": pytest.approx(2 / 3), "after": 0.5}


def test_ips_is_of_sums() -> None:
    """-61.2 - (-58.0) = -3.2."""
    assert math.fsum([-61.2]) - math.fsum([-58.0]) == pytest.approx(-3.2)


def test_clip_table() -> None:
    rows = [{"image": 0.20, "crop": 0.24, "inverse": 0.18}, {"image": 0.25, "crop": 0.25, "inverse": 0.30}]
    rows += [{"image": None, "crop": None, "inverse": None}, {"image": -0.1, "crop": 0.2, "inverse": 0.1}]  # type: ignore[dict-item]
    found = clip_statistics(rows)
    assert found["crop"]["ratio"]["max"] == pytest.approx(1.2)
    assert found["crop"]["difference"]["max"] == pytest.approx(4.0)
    assert found["inverse"]["ratio"]["min"] == pytest.approx(0.9)
    assert found["crop"]["above_image"] == 0.5
    assert found["crop"]["without_ratio"] == 1  # a negative score has no ratio
