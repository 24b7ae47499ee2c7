"""ORPO against its equations in NumPy, and against TRL."""

import numpy as np
import pytest
import torch

from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss
from tests.trl_losses import orpo_loss


def expected_loss(numbers: Numbers, weight: float) -> float:
    """Probabilities and odds as written, not their logarithms."""
    averages = numbers.policy / numbers.lengths
    probabilities = np.exp(averages)
    odds = probabilities / (1 - probabilities)
    ratio = odds[0] / odds[-1]
    return float(-averages[0] - weight * np.log(1 / (1 + 1 / ratio)))


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_it_equals_equations_6_and_7(weight: float) -> None:
    for numbers in drawn(12):
        assert_equals_reference(
            "orpo", numbers, lambda n: expected_loss(n, weight), with_reference=False, weight=weight
        )


def test_it_equals_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    for numbers in drawn(4):
        found = loss("orpo", group_of(numbers, with_reference=False), weight=0.4).item()
        assert found == pytest.approx(orpo_loss(numbers, 0.4, monkeypatch), rel=1e-5)  # float32 in TRL


def test_without_the_odds_ratio_it_is_sft_on_the_best_answer() -> None:
    for numbers in drawn(4):
        found = loss("orpo", group_of(numbers, with_reference=False), weight=0).item()
        assert found == loss("sft", group_of(numbers, with_reference=False), source="best_of_n").item()


@pytest.mark.parametrize("certain", [(0, -50.0), (-50.0, 0), (0, 0), (-1e-9, -1e-9), (-2000.0, -2000.0)])
def test_certain_and_impossible_answers_give_finite_numbers(certain: tuple[float, float]) -> None:
    pair = Numbers(np.array(certain), np.zeros(2), np.array([5.0, 5.0]), np.array([1.0, 0.0]))
    one = group_of(pair, with_reference=False, dtype=torch.float32)
    value = loss("orpo", one)
    value.backward()
    assert torch.isfinite(value)
    assert one.logps.grad is not None
    assert torch.isfinite(one.logps.grad).all()
