"""Groups for tests of preference losses, and comparisons with references that use NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from perceptune.core.methods.method import Group

from tests.plugins import METHODS


class Numbers(NamedTuple):
    """The input of a loss in float64: log-probs of policy and reference, tokens and rewards, best first."""

    policy: np.ndarray
    reference: np.ndarray
    lengths: np.ndarray
    rewards: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """log pi - log pi_ref of each response."""
        return self.policy - self.reference


def drawn(count: int, sizes: Sequence[int] = (2, 3, 5, 12)) -> list[Numbers]:
    """Random inputs with some tied rewards; best and worst differ."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        size = sizes[number % len(sizes)]
        lengths = random.integers(1, 30, size)
        policy, reference = (-lengths * random.uniform(0.02, 3, size) for _ in range(2))
        rewards = np.sort(random.integers(1, 10, size) / 10)[::-1].copy()
        rewards[0], rewards[-1] = 1.0, 0.0
        found.append(Numbers(policy, reference, lengths.astype(float), rewards))
    return found


def group_of(numbers: Numbers, with_reference: bool = True, dtype: torch.dtype = torch.float64) -> Group:
    """The group as a trainer makes it, with a gradient for the policy's log-probs."""
    return Group(
        torch.tensor(numbers.policy, dtype=dtype, requires_grad=True),
        torch.tensor(numbers.reference, dtype=dtype) if with_reference else None,
        torch.tensor(numbers.lengths, dtype=dtype),
        torch.tensor(numbers.rewards, dtype=torch.float64),
    )


def loss(method: str, group: Group, **parameters: Any) -> torch.Tensor:
    """The loss of a method with these parameters, defaults for the others."""
    return METHODS[method].loss(group, METHODS[method].Parameters.model_validate(parameters))


def assert_equals_reference(
    method: str, numbers: Numbers, expected: Callable[[Numbers], float], with_reference: bool = True, **parameters: Any
) -> None:
    """The loss equals `expected`, and its gradient the central differences of `expected`."""
    one = group_of(numbers, with_reference)
    value = loss(method, one, **parameters)
    assert value.item() == pytest.approx(expected(numbers), rel=1e-9, abs=1e-12)
    value.backward()
    assert one.logps.grad is not None
    assert one.logps.grad.tolist() == pytest.approx(slopes(expected, numbers), rel=1e-5, abs=1e-7)


def slopes(function: Callable[[Numbers], float], numbers: Numbers, step: float = 1e-5) -> list[float]:
    """Central differences of a function by each of the policy's log-probs."""
    found = []
    for place in range(len(numbers.policy)):
        move = step * (np.arange(len(numbers.policy)) == place)
        up, down = (function(numbers._replace(policy=numbers.policy + sign * move)) for sign in (1, -1))
        found.append((up - down) / (2 * step))
    return found
