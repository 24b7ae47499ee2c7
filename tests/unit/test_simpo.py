"""SimPO against its equation in NumPy, and against TRL."""

import numpy as np
import pytest

from tests.plugins import METHODS
from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss
from tests.trl_losses import simpo_loss


@pytest.mark.parametrize(("beta", "ratio"), [(2.0, 0.5), (2.5, 0.0), (0.5, 1.6)])
def test_it_equals_equation_6(beta: float, ratio: float) -> None:
    def expected(numbers: Numbers) -> float:
        rewards = beta * numbers.policy / numbers.lengths
        return float(np.logaddexp(0, -(rewards[0] - rewards[-1] - beta * ratio)))

    for numbers in drawn(8):
        assert_equals_reference("simpo", numbers, expected, with_reference=False, beta=beta, gamma_beta_ratio=ratio)


def test_it_equals_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's `simpo_gamma` is gamma, not its ratio to beta."""
    for numbers in drawn(4):
        found = loss("simpo", group_of(numbers, with_reference=False), beta=2.5, gamma_beta_ratio=0.4).item()
        assert found == pytest.approx(simpo_loss(numbers, 2.5, 1.0, monkeypatch), rel=1e-6)


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_no_reference_is_asked_for(name: str) -> None:
    method = METHODS[name]
    assert method.stored(method.Parameters(), "original") == ()
    assert method.views(method.Parameters(), "sharp") == ("sharp",)
    assert method.responses([1.0, 0.5, 0.0], method.Parameters()) == [0, 2]
    pair = Numbers(np.array([-6.0, -9.0]), np.zeros(2), np.array([2.0, 4.5]), np.array([1.0, 0.0]))
    found = method.metrics(group_of(pair, with_reference=False), method.Parameters())
    assert found == {"chosen_logps": -6.0, "rejected_logps": -9.0, "average_margin": -1.0}  # -3 and -2 per token
