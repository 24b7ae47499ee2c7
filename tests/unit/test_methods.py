"""Losses against the dossier's vectors (c.2, c.3) and a float64 reference that loops over pairs."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.methods.method import Group
from pydantic import ValidationError

from tests.plugins import METHODS


def group(scores: list[float], rewards: list[float], dtype: torch.dtype = torch.float64) -> Group:
    """Scores s_i as policy log-probabilities over a zero reference."""
    logps = torch.tensor(scores, dtype=dtype, requires_grad=True)
    return Group(
        logps, torch.zeros(len(scores), dtype=dtype), torch.ones(len(scores)), torch.tensor(rewards, dtype=dtype)
    )


def loss(method: str, one: Group, **parameters: object) -> torch.Tensor:
    return METHODS[method].loss(one, METHODS[method].Parameters.model_validate(parameters))


def reference_perpo(scores: list[float], rewards: list[float], beta: float, gamma: float) -> float:
    """The formula of sec. a.1, pair by pair, strict pairs only."""
    total = weight_sum = 0.0
    for i, j in combinations(range(len(scores)), 2):
        if rewards[i] == rewards[j]:
            continue
        better, worse = (i, j) if rewards[i] > rewards[j] else (j, i)
        weight = abs(rewards[i] - rewards[j]) ** gamma
        z = -beta * (scores[better] - scores[worse])
        total += weight * (max(z, 0) + math.log1p(math.exp(-abs(z))))
        weight_sum += weight
    return total / weight_sum if weight_sum else 0.0


@pytest.mark.parametrize(
    ("logps", "beta", "expected"),
    [
        ((-20, -25, -22, -24), 0.1, 0.554355),
        ((-20, -25, -22, -24), 0.5, 0.201413),
        ((-20, -20, -20, -20), 0.3, 0.693147),
        ((-30, -20, -25, -25), 0.1, 1.313262),
        ((-30, -20, -25, -25), 0.5, 5.006715),
    ],
)
def test_dpo_vectors(logps: tuple[float, ...], beta: float, expected: float) -> None:
    """c.2: policy chosen, policy rejected, reference chosen, reference rejected."""
    chosen, rejected, reference_chosen, reference_rejected = logps
    one = Group(
        torch.tensor([chosen, rejected], dtype=torch.float64),
        torch.tensor([reference_chosen, reference_rejected], dtype=torch.float64),
        torch.ones(2),
        torch.tensor([1.0, 0.0]),
    )
    assert loss("dpo", one, beta=beta).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("rewards", "scores", "beta", "gamma", "expected"),
    [
        ([0.9, 0.6, 0.1], [2, 0.5, -1], 0.1, 0, 0.598756),
        ([0.9, 0.6, 0.1], [2, 0.5, -1], 0.5, 0, 0.325052),
        ([0.9, 0.6, 0.1], [-1, 0.5, 2], 0.1, 0, 0.798756),
        ([0.9, 0.6, 0.1], [-1, 0.5, 2], 0.5, 0, 1.325052),
        ([0.9, 0.6, 0.1], [2, 0.5, -1], 0.1, 0.5, 0.593240),
        ([0.9, 0.6, 0.1], [2, 0.5, -1], 0.5, 0.5, 0.309692),
        ([0.9, 0.6, 0.1], [-1, 0.5, 2], 0.1, 0.5, 0.805664),
        ([0.9, 0.6, 0.1], [-1, 0.5, 2], 0.5, 0.5, 1.371809),
        ([0.9, 0.6, 0.1], [2, 0.5, -1], 0.1, 1, 0.587656),
        ([0.9, 0.6, 0.1], [2, 0.5, -1], 0.5, 1, 0.294142),
        ([0.9, 0.6, 0.1], [-1, 0.5, 2], 0.1, 1, 0.812656),
        ([0.9, 0.6, 0.1], [-1, 0.5, 2], 0.5, 1, 1.419142),
        ([0.9, 0.6, 0.1], [1, 1, 1], 0.7, 0.5, 0.693147),  # all scores equal
        ([0.9, 0.1], [2, -1], 0.1, 0.5, 0.554355),  # N = 2 is DPO
        ([0.8, 0.8, 0.2], [1, 0, -1], 0.1, 0.5, 0.621268),  # a tie weighs nothing
        ([0.8, 0.8, 0.2], [1, 0, -1], 0.1, 0, 0.621268),  # strict pairs only, for gamma 0 too
        ([0.9, 0.85, 0.3, 0.05], [1.2, 0.4, 0.9, -2.0], 0.1, 0, 0.622585),
        ([0.9, 0.85, 0.3, 0.05], [1.2, 0.4, 0.9, -2.0], 0.1, 0.5, 0.617841),
        ([0.9, 0.85, 0.3, 0.05], [1.2, 0.4, 0.9, -2.0], 0.1, 1, 0.613785),
    ],
)
def test_perpo_vectors(rewards: list[float], scores: list[float], beta: float, gamma: float, expected: float) -> None:
    """c.3."""
    assert loss("perpo", group(scores, rewards), beta=beta, gamma=gamma).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0, [-0.029604, 0, 0.029604]),
        (0.5, [-0.029498, -0.003430, 0.032928]),
        (1, [-0.029951, -0.005782, 0.035733]),
    ],
)
def test_perpo_gradient_vectors(gamma: float, expected: list[float]) -> None:
    one = group([2, 0.5, -1], [0.9, 0.6, 0.1])
    loss("perpo", one, beta=0.1, gamma=gamma).backward()
    assert one.logps.grad is not None
    assert one.logps.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("scores", "expected"), [([2, 0.5, -1], 0.485532), ([-1, 0.5, 2], 0.722772)])
def test_lipo_lambda_vectors(scores: list[float], expected: float) -> None:
    one = group(scores, [0.9, 0.6, 0.1])
    assert loss("lipo", one, beta=0.1, weighting="lambda").item() == pytest.approx(expected, abs=1e-6)


def test_uniform_lipo_is_perpo_with_gamma_zero() -> None:
    one = group([1.2, 0.4, 0.9, -2.0], [0.9, 0.85, 0.3, 0.05])
    assert loss("lipo", one, beta=0.1).item() == pytest.approx(0.622585, abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.sampled_from([0.0, 0.1, 0.4, 0.4001, 0.9, 1.0])), min_size=2, max_size=8),
    st.sampled_from([0.02, 0.1, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_perpo_equals_the_pairwise_reference(pairs: list[tuple[float, float]], beta: float, gamma: float) -> None:
    scores, rewards = [p[0] for p in pairs], sorted((p[1] for p in pairs), reverse=True)
    found = loss("perpo", group(scores, rewards), beta=beta, gamma=gamma).item()
    assert found == pytest.approx(reference_perpo(scores, rewards, beta, gamma), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_an_all_tied_list_teaches_nothing(gamma: float) -> None:
    one = group([1, 0, -1], [0.5, 0.5, 0.5])
    value = loss("perpo", one, gamma=gamma)
    value.backward()
    assert value.item() == 0
    assert one.logps.grad is not None
    assert one.logps.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", ["perpo", "dpo", "lipo"])
def test_float32_does_not_overflow(method: str) -> None:
    """log(1 + exp(90)) is inf in float32; softplus is 90."""
    one = group([-450, 450], [0.9, 0.1], torch.float32)
    value = loss(method, one, beta=0.1)
    value.backward()
    assert value.item() == pytest.approx(90)
    assert torch.isfinite(one.logps.grad).all()  # type: ignore[arg-type]


def test_the_gradient_sums_to_zero_over_the_list() -> None:
    one = group([1.2, 0.4, 0.9, -2.0], [0.9, 0.85, 0.3, 0.05])
    loss("perpo", one).backward()
    assert one.logps.grad.sum().item() == pytest.approx(0, abs=1e-12)  # type: ignore[union-attr]


def test_which_responses_a_method_asks_for() -> None:
    rewards = [0.9, 0.5, 0.1]
    chosen = {n: m.responses(rewards, m.Parameters()) for n, m in METHODS.items() if m.groups == "lists"}
    assert chosen == {"perpo": [0, 1, 2], "lipo": [0, 1, 2], "dpo": [0, 2], "sft": [0]}
    assert METHODS["sft"].wants_ground_truth(METHODS["sft"].Parameters())
    assert not METHODS["sft"].wants_ground_truth(METHODS["sft"].Parameters.model_validate({"source": "best_of_n"}))


def test_sft_is_the_mean_over_tokens() -> None:
    one = Group(torch.tensor([-6.0]), None, torch.tensor([3.0]), torch.tensor([1.0]))
    assert loss("sft", one).item() == 2.0  # 6 nats over 3 tokens


def test_parameters_are_closed() -> None:
    with pytest.raises(ValidationError):
        METHODS["perpo"].Parameters.model_validate({"beta": -1})
    with pytest.raises(ValidationError):
        METHODS["dpo"].Parameters.model_validate({"gamma": 0.5})
