"""ListNet against its definition in NumPy."""

import numpy as np
import pytest

from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss


def top_one(values: np.ndarray) -> np.ndarray:
    """The probability of each answer to be ranked first."""
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_it_equals_the_cross_entropy(beta: float, temperature: float) -> None:
    def expected(numbers: Numbers) -> float:
        target, found = top_one(numbers.rewards / temperature), top_one(beta * numbers.ratios)
        return float(-(target * np.log(found)).sum())

    for numbers in drawn(8):
        assert_equals_reference("listnet", numbers, expected, beta=beta, temperature=temperature)


def test_its_minimum_is_where_log_ratios_are_rewards() -> None:
    """There, the loss is the entropy of the target, and its gradient 0."""
    for numbers in drawn(4):
        ideal = numbers._replace(policy=numbers.reference + numbers.rewards / (0.2 * 0.5) - 7)
        one = group_of(ideal)
        value = loss("listnet", one, beta=0.2, temperature=0.5)
        target = top_one(numbers.rewards / 0.5)
        assert value.item() == pytest.approx(-(target * np.log(target)).sum(), rel=1e-9)
        value.backward()
        assert one.logps.grad is not None
        assert one.logps.grad.tolist() == pytest.approx([0] * len(target), abs=1e-12)


def test_a_low_temperature_looks_at_the_best_answer_alone() -> None:
    numbers = drawn(4)[3]._replace(rewards=np.array([1.0, *[0.5] * 10, 0.0]))
    found = loss("listnet", group_of(numbers), temperature=0.01).item()
    assert found == pytest.approx(-np.log(top_one(0.1 * numbers.ratios)[0]), rel=1e-9)
