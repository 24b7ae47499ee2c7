"""Robust DPO against its definition in NumPy, its unbiasedness, and TRL."""

import numpy as np
import pytest

from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss
from tests.trl_losses import dpo_trainer_loss


def dpo(z: float) -> float:
    """-log sigmoid(z)."""
    return float(np.logaddexp(0, -z))


def expected_loss(numbers: Numbers, beta: float, epsilon: float) -> float:
    z = beta * (numbers.ratios[0] - numbers.ratios[-1])
    return ((1 - epsilon) * dpo(z) - epsilon * dpo(-z)) / (1 - 2 * epsilon)


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_it_equals_its_definition(beta: float, epsilon: float) -> None:
    for numbers in drawn(8):
        assert_equals_reference(
            "robust_dpo", numbers, lambda n: expected_loss(n, beta, epsilon), beta=beta, label_smoothing=epsilon
        )


def test_it_equals_trl() -> None:
    for numbers in drawn(4):
        found = loss("robust_dpo", group_of(numbers), beta=0.2, label_smoothing=0.3).item()
        assert found == pytest.approx(dpo_trainer_loss("robust", numbers, 0.2, 0.3), rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_over_wrong_labels_its_mean_is_dpos_loss_of_the_right_ones(epsilon: float) -> None:
    for numbers in drawn(4):
        swapped = Numbers(*(np.array([value[-1], value[0]]) for value in numbers))
        right, wrong = (loss("robust_dpo", group_of(n), label_smoothing=epsilon).item() for n in (numbers, swapped))
        clean = loss("dpo", group_of(numbers)).item()
        assert (1 - epsilon) * right + epsilon * wrong == pytest.approx(clean, rel=1e-9)
