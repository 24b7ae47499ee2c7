"""KTO against its equations in NumPy, and against TRL."""

import numpy as np
import pytest

from tests.plugins import METHODS
from tests.preference_losses import Numbers, assert_equals_reference, drawn, group_of, loss
from tests.trl_losses import kto_trainer_loss

METHOD = METHODS["kto"]


def z0_of(numbers: Numbers) -> float:
    """The mean log-ratio of the answers under the policy, restricted to them; never below 0."""
    likely = np.exp(numbers.policy - numbers.policy.max())
    return max(0.0, float((likely / likely.sum() * numbers.ratios).sum()))


def expected_loss(
    numbers: Numbers, z0: float, beta: float, weights: tuple[float, float], threshold: float | None
) -> float:
    """lambda_y - v(x, y), answer by answer."""
    labels = {0: True, len(numbers.policy) - 1: False}
    if threshold is not None:
        labels = {place: bool(reward >= threshold) for place, reward in enumerate(numbers.rewards)}
    losses = []
    for place, desirable in labels.items():
        weight = weights[0] if desirable else weights[1]
        gap = numbers.ratios[place] - z0 if desirable else z0 - numbers.ratios[place]
        losses.append(weight - weight / (1 + np.exp(-beta * gap)))
    return float(np.mean(losses))


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("point", ["answers", "zero"])
@pytest.mark.parametrize(("beta", "weights"), [(0.1, (1.0, 1.0)), (0.3, (1.5, 0.7))])
def test_it_equals_its_definition(
    beta: float, weights: tuple[float, float], point: str, threshold: float | None
) -> None:
    """The gradient is that with a constant z0."""
    points = []
    for numbers in drawn(8):
        z0 = z0_of(numbers) if point == "answers" else 0.0
        points.append(z0)
        assert_equals_reference(
            "kto", numbers, lambda n, z0=z0: expected_loss(n, z0, beta, weights, threshold),  # type: ignore[misc]
            beta=beta, desirable_weight=weights[0], undesirable_weight=weights[1], threshold=threshold,
            reference_point=point,
        )  # fmt: skip
        settings = METHOD.Parameters.model_validate({"reference_point": point})
        assert METHOD.metrics(group_of(numbers), settings)["reference_point"] == pytest.approx(z0, rel=1e-9)
    assert any(z0 > 0.1 for z0 in points) == (point == "answers")


def test_it_equals_trl() -> None:
    """With the reference point of our estimate, and with 0, which TRL calls `apo_zero_unpaired`."""
    for numbers in drawn(4):
        labels = [bool(reward >= 0.5) for reward in numbers.rewards]
        common = {"beta": 0.2, "desirable_weight": 1.3, "undesirable_weight": 0.8, "threshold": 0.5}
        found = loss("kto", group_of(numbers), **common).item()
        expected = kto_trainer_loss("kto", numbers, labels, 0.2, (1.3, 0.8), z0_of(numbers))
        assert found == pytest.approx(expected, rel=1e-6)
        found = loss("kto", group_of(numbers), **common, reference_point="zero").item()
        assert found == pytest.approx(kto_trainer_loss("apo_zero_unpaired", numbers, labels, 0.2, (1.3, 0.8)), rel=1e-6)


def test_the_reference_point_is_the_divergence_if_the_list_has_all_answers() -> None:
    """Three answers are all that the policy can say: z0 is the sum of pi log(pi / pi_ref)."""
    policy, reference = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    divergence = 0.7 * np.log(0.7 / 0.3) + 0.2 * np.log(0.2 / 0.3) + 0.1 * np.log(0.1 / 0.4)
    numbers = Numbers(np.log(policy), np.log(reference), np.ones(3), np.array([1.0, 0.5, 0.0]))
    found = METHOD.metrics(group_of(numbers), METHOD.Parameters())["reference_point"]
    assert found == pytest.approx(divergence, rel=1e-12)


def test_which_answers_it_asks_for() -> None:
    rewards = [1.0, 0.5, 0.0]
    for values, expected in (
        ({}, [0, 1, 2]),
        ({"threshold": 0.5, "reference_point": "zero"}, [0, 1, 2]),
        ({"reference_point": "zero"}, [0, 2]),
    ):
        assert METHOD.responses(rewards, METHOD.Parameters.model_validate(values)) == expected


def test_answers_that_were_not_asked_for_do_not_matter() -> None:
    numbers = drawn(4)[3]
    unknown = numbers._replace(policy=np.where(np.arange(12) % 11 == 0, numbers.policy, np.nan))
    one = group_of(unknown)
    value = loss("kto", one, reference_point="zero")
    value.backward()
    assert value.item() == loss("kto", group_of(numbers), reference_point="zero").item()
    assert one.logps.grad is not None
    assert np.isfinite(one.logps.grad.numpy()[[0, -1]]).all()
