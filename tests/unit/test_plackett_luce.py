"""Plackett-Luce against a loop over positions, and against the probabilities of all rankings."""

from itertools import permutations

import numpy as np
import pytest
import torch

from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss


def expected_loss(numbers: Numbers, beta: float) -> float:
    """Position by position: the chosen answer among itself and all that are worse."""
    total = 0.0
    for place, reward in enumerate(numbers.rewards):
        rivals = [other for other in range(len(numbers.rewards)) if numbers.rewards[other] < reward]
        utilities = beta * numbers.ratios[[place, *rivals]]
        total -= utilities[0] - utilities.max() - np.log(np.exp(utilities - utilities.max()).sum())
    return float(total)


@pytest.mark.parametrize("beta", [0.02, 0.1, 1.0])
def test_it_equals_the_loop_over_positions(beta: float) -> None:
    lists = drawn(12)
    assert any(len(set(numbers.rewards)) < len(numbers.rewards) for numbers in lists)  # ties
    for numbers in lists:
        assert_equals_reference("plackett_luce", numbers, lambda n: expected_loss(n, beta), beta=beta)


def test_the_probabilities_of_all_rankings_sum_to_one() -> None:
    numbers = Numbers(np.array([-2.0, -3.5, -1.0, -6.0]), np.array([-3.0, -1.0, -2.0, -4.0]), np.ones(4), np.zeros(4))
    found = []
    for order in permutations(range(4)):
        ranked = Numbers(*(value[list(order)] for value in numbers))._replace(rewards=np.array([4.0, 3.0, 2.0, 1.0]))
        found.append(np.exp(-loss("plackett_luce", group_of(ranked), beta=0.5).item()))
    assert sum(found) == pytest.approx(1, rel=1e-12)
    assert max(found) > 2 * min(found)


def test_two_answers_are_dpo() -> None:
    for numbers in drawn(4, sizes=(2,)):
        found = loss("plackett_luce", group_of(numbers)).item()
        assert found == pytest.approx(loss("dpo", group_of(numbers)).item(), rel=1e-9)


def test_an_all_tied_list_teaches_nothing() -> None:
    one = group_of(drawn(3)[2]._replace(rewards=np.full(5, 0.5)))
    value = loss("plackett_luce", one)
    value.backward()
    assert value.item() == 0
    assert one.logps.grad is not None
    assert one.logps.grad.tolist() == [0] * 5


@pytest.mark.parametrize("method", ["plackett_luce", "listnet", "cdpo"])
def test_float32_does_not_overflow(method: str) -> None:
    pair = Numbers(np.array([-450.0, 450.0]), np.zeros(2), np.ones(2), np.array([1.0, 0.0]))
    one = group_of(pair, dtype=torch.float32)
    value = loss(method, one, beta=1.0)
    value.backward()
    assert value.item() == pytest.approx({"plackett_luce": 900, "listnet": 900 / (1 + np.exp(-1)), "cdpo": 810}[method])
    assert one.logps.grad is not None
    assert torch.isfinite(one.logps.grad).all()
