"""Losses against reference vectors and a float64 reference that loops over pairs."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from perceptune.core.methods.logprob_queries import Look
from perceptune.core.methods.method import Group, Stored
from pydantic import ValidationError

from tests.plugins import METHODS


def group(scores: list[float], rewards: list[float], dtype: torch.dtype = torch.float64) -> Group:
    """Scores s_i as policy log-probs with a zero reference."""
    logps = torch.tensor(scores, dtype=dtype, requires_grad=True)
    zeros, ones = torch.zeros(len(scores), dtype=dtype), torch.ones(len(scores))
    return Group(logps, zeros, ones, torch.tensor(rewards, dtype=torch.float64))


def loss(method: str, one: Group, **parameters: object) -> torch.Tensor:
    return METHODS[method].loss(one, METHODS[method].Parameters.model_validate(parameters))


def reference_perpo(scores: list[float], rewards: list[float], beta: float, gamma: float) -> float:
    """PerPO's formula, pair by pair, strict pairs only."""
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
    """Policy chosen, policy rejected, reference chosen, reference rejected."""
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
        ([0.8, 0.8, 0.2], [1, 0, -1], 0.1, 0.5, 0.621268),  # a tie has weight 0
        ([0.8, 0.8, 0.2], [1, 0, -1], 0.1, 0, 0.621268),  # strict pairs only, also for gamma 0
        ([0.9, 0.85, 0.3, 0.05], [1.2, 0.4, 0.9, -2.0], 0.1, 0, 0.622585),
        ([0.9, 0.85, 0.3, 0.05], [1.2, 0.4, 0.9, -2.0], 0.1, 0.5, 0.617841),
        ([0.9, 0.85, 0.3, 0.05], [1.2, 0.4, 0.9, -2.0], 0.1, 1, 0.613785),
    ],
)
def test_perpo_vectors(rewards: list[float], scores: list[float], beta: float, gamma: float, expected: float) -> None:
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
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]),
)
def test_perpo_equals_the_pairwise_reference(pairs: list[tuple[float, float]], beta: float, gamma: float) -> None:
    scores, rewards = [p[0] for p in pairs], sorted((p[1] for p in pairs), reverse=True)
    found = loss("perpo", group(scores, rewards), beta=beta, gamma=gamma).item()
    assert found == pytest.approx(reference_perpo(scores, rewards, beta, gamma), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0, 20.0])
@pytest.mark.parametrize("margin", [0.4, 1e-4, 1e-9])
def test_two_answers_are_dpo_whatever_gamma_and_margin(gamma: float, margin: float) -> None:
    """softplus(-0.1 x 3); log-probs are float32, as in training."""
    one = group([2, -1], [0.5 + margin, 0.5], torch.float32)
    value = loss("perpo", one, beta=0.1, gamma=gamma)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.log1p(math.exp(-0.3)), rel=1e-6)
    value.backward()
    assert one.logps.grad is not None
    slope = -0.1 / (1 + math.exp(0.3))
    assert one.logps.grad.tolist() == pytest.approx([slope, -slope], rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 4.0, 8.0])
@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e6])
def test_weights_do_not_depend_on_the_unit_of_the_rewards(gamma: float, unit: float) -> None:
    scores, rewards = [1.2, 0.4, 0.9, -2.0], [0.9, 0.85, 0.3, 0.05]
    found = loss("perpo", group(scores, [unit * reward for reward in rewards]), beta=0.1, gamma=gamma).item()
    assert found == pytest.approx(reference_perpo(scores, rewards, 0.1, gamma), rel=1e-9)


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
    whole = ("perpo", "lipo", "plackett_luce", "listnet", "kto")
    pairs = ("dpo", "mdpo", "ipo", "cdpo", "robust_dpo", "simpo", "orpo")
    assert chosen == {**{name: [0, 1, 2] for name in whole}, **{name: [0, 2] for name in pairs}, "sft": [0]}
    assert METHODS["sft"].wants_ground_truth(METHODS["sft"].Parameters())
    assert not METHODS["sft"].wants_ground_truth(METHODS["sft"].Parameters.model_validate({"source": "best_of_n"}))


def test_sft_is_the_mean_over_tokens() -> None:
    one = Group(torch.tensor([-6.0]), None, torch.tensor([3.0]), torch.tensor([1.0]))
    assert loss("sft", one).item() == 2.0  # 6 nats over 3 tokens


def mdpo_group(logps: list[float], reference: list[float], corrupted: tuple[float, float]) -> Group:
    """Log-probs of a list, and of its best response under the corrupted view: (policy, reference)."""
    size = len(logps)
    hidden = [torch.full((size,), torch.nan, dtype=torch.float64) for _ in corrupted]
    for values, value in zip(hidden, corrupted, strict=True):
        values[0] = value  # not queried
    return Group(
        torch.tensor(logps, dtype=torch.float64, requires_grad=True),
        torch.tensor(reference, dtype=torch.float64),
        torch.ones(size),
        torch.linspace(1, 0, size, dtype=torch.float64),
        views={"hidden": (hidden[0].requires_grad_(), hidden[1])},
    )


def reference_mdpo(
    logps: list[float], reference: list[float], corrupted: tuple[float, float], settings: dict[str, float]
) -> float:
    """The three losses of arXiv:2406.11839 as written, with plain logarithms and exponentials."""
    beta, ratios = settings["beta"], [p - r for p, r in zip(logps, reference, strict=True)]

    def minus_log_sigmoid(x: float) -> float:
        return math.log(1 + math.exp(-x))

    preference = minus_log_sigmoid(beta * ratios[0] - beta * ratios[-1])
    conditional = minus_log_sigmoid(beta * ratios[0] - beta * (corrupted[0] - corrupted[1]))
    anchored = minus_log_sigmoid(beta * ratios[0] - settings["delta"])
    return preference + settings["conditional"] * conditional + settings["anchor"] * anchored


MDPO_SETTINGS = [
    {"beta": 0.1, "delta": 0.0, "conditional": 1.0, "anchor": 1.0},
    {"beta": 0.5, "delta": 0.7, "conditional": 0.3, "anchor": 2.0},
    {"beta": 0.2, "delta": 0.0, "conditional": 0.0, "anchor": 1.0},
    {"beta": 0.2, "delta": -1.0, "conditional": 1.0, "anchor": 0.0},
]


@pytest.mark.parametrize("settings", MDPO_SETTINGS)
@given(data=st.data())
def test_mdpo_equals_its_three_terms(settings: dict[str, float], data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 5))
    numbers = st.floats(-60, 0)
    logps, reference = (data.draw(st.lists(numbers, min_size=size, max_size=size)) for _ in range(2))
    corrupted = (data.draw(numbers), data.draw(numbers))
    found = loss("mdpo", mdpo_group(logps, reference, corrupted), corrupted="hidden", **settings).item()
    assert found == pytest.approx(reference_mdpo(logps, reference, corrupted, settings), rel=1e-9)


@pytest.mark.parametrize("settings", MDPO_SETTINGS)
def test_the_gradient_of_mdpo_is_that_of_finite_differences(settings: dict[str, float]) -> None:
    logps, reference, corrupted = [-12.0, -9.0, -20.0], [-13.0, -9.5, -17.0], (-15.0, -14.0)
    one = mdpo_group(logps, reference, corrupted)
    loss("mdpo", one, corrupted="hidden", **settings).backward()
    h = 1e-5
    for place in range(3):
        moved = [[v + sign * h * (i == place) for i, v in enumerate(logps)] for sign in (1, -1)]
        up, down = (reference_mdpo(m, reference, corrupted, settings) for m in moved)
        assert one.logps.grad is not None
        assert one.logps.grad[place].item() == pytest.approx((up - down) / (2 * h), abs=1e-8)
    up, down = (reference_mdpo(logps, reference, (corrupted[0] + s * h, corrupted[1]), settings) for s in (1, -1))
    grad = one.views["hidden"][0].grad
    found = 0.0 if grad is None else grad[0].item()
    assert found == pytest.approx((up - down) / (2 * h), abs=1e-8)


def test_mdpo_without_its_own_terms_is_dpo_and_needs_no_corrupted_view() -> None:
    method, plain = METHODS["mdpo"], {"conditional": 0, "anchor": 0}
    settings = method.Parameters.model_validate(plain)
    one = group([2, 0.5, -1], [0.9, 0.6, 0.1])
    assert loss("mdpo", one, **plain).item() == loss("dpo", one).item()
    assert method.views(settings, "original") == ("original",)
    assert method.looks([0.9, 0.6, 0.1], {}, settings, "original") == [Look("original", (0, 2))]
    assert math.isnan(method.metrics(one, settings)["conditional_margin"])


def test_mdpo_asks_for_the_best_answer_under_the_corrupted_view() -> None:
    method = METHODS["mdpo"]
    settings = method.Parameters.model_validate({"corrupted": "hidden"})
    assert method.views(settings, "sharp") == ("sharp", "hidden")
    assert method.stored(settings, "sharp") == (Stored("reference", "sharp"), Stored("reference", "hidden"))
    assert method.looks([1, 0.5, 0], {}, settings, "sharp") == [Look("sharp", (0, 2)), Look("hidden", (0,))]
    found = method.metrics(mdpo_group([-12, -9, -20], [-13, -9, -17], (-15, -14)), settings)
    assert found["margin"] == pytest.approx(1 + 3)
    assert found["conditional_margin"] == pytest.approx(1 + 1)
    assert found["anchor_reward"] == pytest.approx(0.1)


def test_parameters_are_closed() -> None:
    with pytest.raises(ValidationError):
        METHODS["perpo"].Parameters.model_validate({"beta": -1})
    with pytest.raises(ValidationError):
        METHODS["dpo"].Parameters.model_validate({"gamma": 0.5})
