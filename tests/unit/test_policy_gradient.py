"""Token losses against reference vectors that were computed independently in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from perceptune.core.methods.policy_gradient import (
    Step,
    as_many_random,
    clipped_surrogate,
    contrastive_perception,
    engine_correction,
    group_advantages,
    kl_estimate,
    perception_scores,
    perception_tokens,
    token_weights,
)


def advantages(rewards: list[float], scale: str = "group", epsilon: float = 1e-6) -> list[float]:
    groups = torch.zeros(len(rewards), dtype=torch.long)
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), groups, scale, epsilon).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rewards", "scale", "epsilon", "expected"),
    [
        ([1, 1, 0.1, 0, 1], "group", 1e-6, [0.728615, 0.728615, -0.997053, -1.188793, 0.728615]),
        ([1, 1, 0.1, 0, 1], "group", 1e-4, [0.728477, 0.728477, -0.996863, -1.188568, 0.728477]),
        ([1, 1, 0.1, 0, 1], "none", 1e-6, [0.38, 0.38, -0.52, -0.62, 0.38]),
        ([1, 1, 0, 0, 1], "group", 1e-6, [0.730295, 0.730295, -1.095443, -1.095443, 0.730295]),
        ([0.1] * 5, "group", 1e-6, [0.0] * 5),
        ([0.1] * 4 + [0], "group", 1e-6, [0.447204] * 4 + [-1.788814]),
        ([1] + [0] * 7, "group", 1e-6, [2.474867] + [-0.353552] * 7),
        ([0.7], "group", 1e-6, [0.0]),
    ],
)
def test_advantages(rewards: list[float], scale: str, epsilon: float, expected: list[float]) -> None:
    assert advantages(rewards, scale, epsilon) == pytest.approx(expected, abs=1.5e-6)


def test_advantages_are_those_of_the_own_group() -> None:
    rewards, groups = torch.tensor([1.0, 5.0, 0.0, 5.0, 1.0, 5.0]), torch.tensor([0, 1, 0, 1, 0, 1])
    found = group_advantages(rewards, groups, "group")
    assert found[groups == 0].tolist() == pytest.approx(advantages([1, 0, 1]))
    assert found[groups == 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "losses", "gradient"),
    [
        (1.0, 1, (-1, -1, -1), -1),
        (1.25, 1, (-1.25, -1.25, -1.2), -1.25),
        (1.5, 1, (-1.3, -1.28, -1.2), 0),
        (0.5, 1, (-0.5, -0.5, -0.5), -0.5),
        (0.5, -1, (0.8, 0.8, 0.8), 0),
        (1.5, -1, (1.5, 1.5, 1.5), 1.5),
        (2.5, -1, (2.5, 2.5, 2.5), 2.5),
        (5.0, -1, (3.0, 3.0, 3.0), 0),
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, losses: tuple[float, ...], gradient: float) -> None:
    """Losses for clip-high .3, .28 and .2; the gradient for .3."""
    for high, expected in zip((0.3, 0.28, 0.2), losses, strict=True):
        logps = torch.tensor([ratio]).log().requires_grad_()
        found = clipped_surrogate(logps, torch.zeros(1), torch.tensor([float(advantage)]), 0.2, high, 3.0)
        assert found.losses.item() == pytest.approx(expected, abs=1e-6)
        found.losses.sum().backward()
        assert logps.grad is not None
        blocked = bool(found.clipped_high | found.clipped_low)
        assert blocked == (logps.grad.item() == 0)
        if high == 0.3:
            assert logps.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_surrogate_without_dual_clip_and_with_an_enormous_ratio() -> None:
    found = clipped_surrogate(torch.tensor([2.0, 500.0]), torch.zeros(2), torch.tensor([-1.0, -1.0]), 0.2, 0.2, None)
    assert found.losses.tolist() == pytest.approx([np.exp(2), np.exp(20)], rel=1e-5)


LENGTHS = [3, 1, 2]
LOSSES = torch.tensor([-1.0, -1.3, -0.5, 0.8, 0.4, 0.6])


@pytest.mark.parametrize(
    ("aggregation", "chunk", "expected"),
    [
        ("token_mean", 0, -0.166667),
        ("seq_mean_token_mean", 0, 0.122222),
        ("seq_mean_token_sum_norm", 0, -0.083333),
        ("chunk_token_mean", 2, 0.0),
    ],
)
def test_aggregation(aggregation: str, chunk: int, expected: float) -> None:
    weights = token_weights(LENGTHS, Step(tokens=6, responses=3, longest=4), aggregation, chunk)  # type: ignore[arg-type]
    assert (weights * LOSSES).sum().item() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 5),
    st.sampled_from(["token_mean", "seq_mean_token_mean", "chunk_token_mean"]),
)
def test_means_of_equal_losses_are_that_loss(lengths: list[int], chunk: int, aggregation: str) -> None:
    step = Step(sum(lengths), len(lengths), 9)
    assert token_weights(lengths, step, aggregation, chunk).sum().item() == pytest.approx(1, abs=1e-5)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(1, 11))
def test_a_step_shared_by_two_processes_is_the_same_step(lengths: list[int], cut: int) -> None:
    cut = min(cut, len(lengths) - 1)
    step = Step(sum(lengths), len(lengths), 9, processes=2)
    for aggregation in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm"):
        parts = [token_weights(part, step, aggregation) for part in (lengths[:cut], lengths[cut:])]  # type: ignore[arg-type]
        assert torch.equal(torch.cat(parts), token_weights(lengths, step, aggregation))  # type: ignore[arg-type]


LOGPS = [-0.2, -1, -2, -0.05, -6, -0.01]
REFERENCE = [-0.5, -0.7, -2, -4, -1, -15]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [0.3, -0.3, 0, 3.95, -5, 14.99]),
        ("abs", [0.3, 0.3, 0, 3.95, 5, 14.99]),
        ("k2", [0.045, 0.045, 0, 7.80125, 12.5, 112.35005]),
        ("k3", [0.040818, 0.049859, 0, 2.969255, 10, 10]),  # 142.4 and 13.99 without the limit
    ],
)
def test_kl_estimators(estimator: str, expected: list[float]) -> None:
    found = kl_estimate(torch.tensor(LOGPS), torch.tensor(REFERENCE), estimator)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "slope"), [("k1", (1, 1)), ("abs", (1, -1)), ("k2", (400, -400)), ("k3", (0, 0))]
)
def test_only_k3_loses_its_gradient_far_from_the_reference(estimator: str, slope: tuple[float, float]) -> None:
    """At differences of 400 and -400."""
    logps = torch.tensor([0.0, -400.0], requires_grad=True)
    kl_estimate(logps, torch.tensor([-400.0, 0.0]), estimator).sum().backward()  # type: ignore[arg-type]
    assert logps.grad is not None
    assert logps.grad.tolist() == list(slope)


def test_k3_gradient_ends_where_it_is_cut() -> None:
    """At other - p of 2.610869 above and 10.999983 below."""
    logps = torch.tensor(LOGPS, requires_grad=True)
    kl_estimate(logps, torch.tensor(REFERENCE)).sum().backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([0.259182, -0.349859, 0, 0.980745, 0, 0], abs=1e-5)
    for difference, slope in ((2.6108, True), (2.6110, False), (-10.9998, True), (-11.0002, False)):
        one = torch.zeros(1, requires_grad=True)
        kl_estimate(one, torch.tensor([difference])).sum().backward()
        assert one.grad is not None
        assert (one.grad.item() != 0) == slope


def test_k3_is_exact_in_expectation_and_its_gradient_is_that_of_the_other_direction() -> None:
    """E_p[k3] = KL(p || q), and E_p[d k3] in p's logits = p - q, the gradient of KL(q || p)."""
    p, q = torch.tensor([0.7, 0.2, 0.08, 0.02]).double(), torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    assert (p * kl_estimate(p.log(), q.log())).sum().item() == pytest.approx(0.205146, abs=1e-6)
    logits = p.log().clone().requires_grad_()
    logps = logits.log_softmax(0)
    (p * kl_estimate(logps, q.log())).sum().backward()  # p as the weights of fixed samples
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.3, -0.1, -0.12, -0.08], abs=1e-6)


def test_engine_correction() -> None:
    old, sampled = torch.tensor([-0.10, -0.70, -2.30]), torch.tensor([-0.12, -0.50, -3.90])
    free = engine_correction(old, sampled, 100.0)
    assert free.tolist() == pytest.approx([1.020201, 0.818731, 4.953032], abs=1e-6)
    assert free.prod().item() == pytest.approx(4.137120, abs=1e-5)
    assert engine_correction(old, sampled, 2.0).tolist() == pytest.approx([1.020201, 0.818731, 2.0], abs=1e-6)


ENTROPY = torch.tensor([0.20, 1.10, 0.05, 0.90, 0.00, 1.50, 0.60])
REMOVED = torch.tensor([1.00, 1.60, 0.04, 2.10, 0.30, 1.50, 0.90])
ONE = torch.zeros(7, dtype=torch.long)


def test_perception_scores() -> None:
    normalised = perception_scores(ENTROPY, REMOVED, "normalised").tolist()
    assert normalised == pytest.approx([0.799999, 0.3125, 0, 0.571428, 0.999997, 0, 0.333333], abs=1e-5)
    difference = perception_scores(ENTROPY, REMOVED, "difference").tolist()
    assert difference == pytest.approx([0.8, 0.5, 0, 1.2, 0.3, 0, 0.3], abs=1e-6)
    orders = [np.argsort(-np.array(values), kind="stable")[:3].tolist() for values in (difference, normalised)]
    assert orders == [[3, 0, 1], [4, 0, 3]]


@pytest.mark.parametrize(
    ("share", "rounding", "expected"),
    [
        (0.5, "floor", [0, 4]),
        (0.5, "ceil", [0, 3, 4]),
        (0.2, "floor", [4]),
        (0.0, "floor", [4]),
        (1.0, "floor", [0, 1, 3, 4, 6]),
    ],
)
def test_perception_tokens(share: float, rounding: str, expected: list[int]) -> None:
    scores = perception_scores(ENTROPY, REMOVED, "normalised")
    found = perception_tokens(scores, ONE, share, rounding, ties=True)  # type: ignore[arg-type]
    assert found.nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("percent", [7, 14, 28, 29, 50, 55, 57, 58, 70, 99])
def test_a_share_of_the_tokens_counts_as_it_is_written(percent: int, rounding: str) -> None:
    """floor(0.29 x 100) is 29 and ceil(0.28 x 25) is 7, although the products of floating-point
    numbers are below 29 and above 7."""
    for count in (25, 50, 90, 100, 200, 700):
        scores = torch.arange(1, count + 1).float()
        found = perception_tokens(scores, torch.zeros(count, dtype=torch.long), percent / 100, rounding, ties=False)  # type: ignore[arg-type]
        whole, rest = divmod(percent * count, 100)
        assert found.sum() == max(1, whole + (rounding == "ceil" and rest > 0))


def test_perception_tokens_of_several_responses_and_of_none() -> None:
    owners = torch.tensor([0, 0, 1, 1, 1, 2])
    scores = torch.tensor([0.0, 0.0, 0.2, 0.9, 0.9, 0.1])
    with_ties = perception_tokens(scores, owners, 0.34, "floor", ties=True)
    assert with_ties.tolist() == [False, False, False, True, True, True]
    exact = perception_tokens(scores, owners, 0.34, "floor", ties=False)
    assert exact.tolist() == [False, False, False, True, False, True]
    assert not perception_tokens(
        perception_scores(REMOVED, ENTROPY, "normalised")[:0], owners[:0], 0.5, "floor", True
    ).any()


def test_random_tokens_have_the_counts_of_the_chosen_ones_and_depend_on_their_response_alone() -> None:
    owners = torch.arange(4).repeat_interleave(torch.tensor([5, 9, 1, 40]))
    old = -torch.rand(55, generator=torch.Generator().manual_seed(0))
    chosen = torch.zeros(55, dtype=torch.bool)
    chosen[[0, 3, 6, 7, 8, *range(20, 40)]] = True
    found = as_many_random(chosen, owners, old)
    assert [int(found[owners == i].sum()) for i in range(4)] == [2, 3, 0, 20]
    assert not torch.equal(found, chosen)
    last = owners == 3  # alone on its device
    assert torch.equal(as_many_random(chosen[last], owners[last], old[last]), found[last])


def test_contrast_of_equal_views_is_log_2() -> None:
    found = contrastive_perception(torch.tensor([0.3]), torch.tensor([0.3]), 0.1)
    assert found.item() == pytest.approx(np.log(2))
