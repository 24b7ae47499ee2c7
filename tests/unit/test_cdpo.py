"""Conservative DPO against its definition in NumPy."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.plugins import METHODS
from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss


def expected_loss(numbers: Numbers, beta: float, epsilon: float) -> float:
    """The cross-entropy of P(best over worst) = sigmoid(z) with the label 1 - epsilon."""
    z = beta * (numbers.ratios[0] - numbers.ratios[-1])
    agrees = 1 / (1 + np.exp(-z))
    return float(-(1 - epsilon) * np.log(agrees) - epsilon * np.log(1 - agrees))


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_it_equals_the_smoothed_cross_entropy(beta: float, epsilon: float) -> None:
    for numbers in drawn(8):
        if abs(beta * (numbers.ratios[0] - numbers.ratios[-1])) < 20:  # 1 - sigmoid loses its digits
            assert_equals_reference(
                "cdpo", numbers, lambda n: expected_loss(n, beta, epsilon), beta=beta, label_smoothing=epsilon
            )


def test_without_smoothing_it_is_dpo() -> None:
    for numbers in drawn(4):
        found = loss("cdpo", group_of(numbers), label_smoothing=0).item()
        assert found == pytest.approx(loss("dpo", group_of(numbers)).item(), rel=1e-12)


def test_the_margin_is_trained_to_the_odds_of_the_labels() -> None:
    """The gradient is 0 at z = ln((1 - epsilon) / epsilon) = ln 9, and changes its sign there."""
    pair = Numbers(np.array([0.0, 0.0]), np.array([0.0, 0.0]), np.ones(2), np.array([1.0, 0.0]))
    slopes = []
    for z in (np.log(9) - 0.1, np.log(9), np.log(9) + 0.1):
        one = group_of(pair._replace(policy=np.array([z, 0.0])))
        loss("cdpo", one, beta=1.0, label_smoothing=0.1).backward()
        assert one.logps.grad is not None
        slopes.append(one.logps.grad[0].item())
    assert slopes[0] < -1e-3
    assert slopes[1] == pytest.approx(0, abs=1e-12)
    assert slopes[2] > 1e-3


@pytest.mark.parametrize("method", ["cdpo", "robust_dpo"])
@pytest.mark.parametrize("epsilon", [-0.1, 0.5])
def test_the_share_of_wrong_labels_is_below_one_half(method: str, epsilon: float) -> None:
    with pytest.raises(ValidationError):
        METHODS[method].Parameters.model_validate({"label_smoothing": epsilon})
