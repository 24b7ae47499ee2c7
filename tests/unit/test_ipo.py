"""IPO against its equation in NumPy, and against TRL."""

import numpy as np
import pytest

from tests.plugins import METHODS
from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss
from tests.trl_losses import dpo_trainer_loss

PAIR = Numbers(np.array([-6.0, -9.0]), np.array([-8.0, -6.0]), np.array([2.0, 3.0]), np.array([1.0, 0.0]))
"""Log-ratios 2 and -3: the margin is 5, and 1 + 1 = 2 per token."""


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"tau": 0.1, "per_token": False}, 0.0),  # 5 - 1 / 0.2
        ({"tau": 0.1}, 9.0),  # (2 - 5)^2
        ({"tau": 0.5}, 1.0),  # (2 - 1)^2
        ({"tau": 0.5, "per_token": False}, 16.0),  # (5 - 1)^2
    ],
)
def test_a_pair_by_hand(parameters: dict[str, float], expected: float) -> None:
    assert loss("ipo", group_of(PAIR), **parameters).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_it_equals_equation_17(tau: float, per_token: bool) -> None:
    def expected(numbers: Numbers) -> float:
        ratios = numbers.ratios / (numbers.lengths if per_token else 1)
        return float((ratios[0] - ratios[-1] - 1 / (2 * tau)) ** 2)

    for numbers in drawn(8):
        assert_equals_reference("ipo", numbers, expected, tau=tau, per_token=per_token)


def test_it_equals_trl() -> None:
    for numbers in drawn(4):
        found = loss("ipo", group_of(numbers), tau=0.3).item()
        assert found == pytest.approx(dpo_trainer_loss("ipo", numbers, 0.3), rel=1e-6)


def test_the_gradient_stops_at_the_target_margin() -> None:
    """Beyond it, the margin is trained to shrink, unlike DPO's."""
    method = METHODS["ipo"]
    assert method.responses([1.0, 0.5, 0.0], method.Parameters()) == [0, 2]
    for margin, sign in ((0.9, -1), (1.0, 0), (1.1, 1)):
        one = group_of(PAIR._replace(policy=np.array([-6.0, -9.0]), reference=np.array([-6.0 - margin, -9.0])))
        loss("ipo", one, tau=0.5, per_token=False).backward()
        assert one.logps.grad is not None
        assert one.logps.grad.tolist() == pytest.approx([0.2 * sign, -0.2 * sign], abs=1e-12)
