"""P2-DPO's losses against reference vectors, and the effect of each ablation."""

import math

import pytest
import torch
from perceptune.core.methods.logprob_queries import Look
from perceptune.core.methods.method import Group
from perceptune.core.methods.p2dpo import P2DPOParameters, calibration_loss, focus_weight, preference_loss
from pydantic import ValidationError
from torch import Tensor

from tests.plugins import METHODS

NAN = math.nan
METHOD = METHODS["p2dpo"]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def group(
    calibration: tuple[float, ...] = (-18, -26, -30, -28),
    pairs: tuple[str, ...] = ("focus", "robust"),
    ratio: float | None = 1.2,
) -> Group:
    """Responses: focus chosen, focus rejected, robust chosen, robust rejected; NaN wherever nothing
    is queried.
    """
    policy_enhanced, policy_degraded, reference_enhanced, reference_degraded = calibration
    places = {"focus": (0, 1), "robust": (2, 3)}
    return Group(
        tensor(-20, -25, NAN, NAN),
        tensor(-22, -24, NAN, NAN).detach(),
        torch.ones(4),
        torch.zeros(4),
        views={
            "enhanced": (tensor(policy_enhanced, NAN, NAN, NAN), tensor(NAN, reference_enhanced, NAN, NAN).detach()),
            "degraded": (tensor(policy_degraded, NAN, NAN, NAN), tensor(NAN, reference_degraded, NAN, NAN).detach()),
            "noise": (tensor(NAN, NAN, -40, -41), tensor(NAN, NAN, -42, -40).detach()),
        },
        pairs={kind: places[kind] for kind in pairs},
        numbers={} if ratio is None else {"clip_image": 0.20, "clip_crop": 0.20 * ratio},
    )


@pytest.mark.parametrize(
    ("terms", "expected"),
    [((-18, -26, -30, -28), 0.313262), ((-18, -18, -30, -30), 0.693147), ((-25, -20, -22, -27), 1.313262)],
)
def test_calibration_vectors(terms: tuple[float, ...], expected: float) -> None:
    """In the third all log-probs differ: a reference on the chosen response would give another
    number.
    """
    assert calibration_loss(group(terms), 0.1).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "weight"),
    [(1.22, 0.6951), (1.16, 0.6843), (1.06, 0.6074), (1.0, 0.5), (0.93, 0.3791), (0.80, 0.3072), (0.24 / 0.20, 0.6928), (0.18 / 0.21, 0.3217)],
)  # fmt: skip
def test_dynamic_weights(ratio: float, weight: float) -> None:
    """To the four digits of the reference."""
    found = focus_weight({"clip_image": 0.21, "clip_crop": 0.21 * ratio}, P2DPOParameters())
    assert found == pytest.approx(weight, abs=6e-5)


def test_weights_without_scores_or_with_bad_ones() -> None:
    assert focus_weight({}, P2DPOParameters()) == 0.5
    assert focus_weight({"clip_image": 0.1, "clip_crop": 0.3}, P2DPOParameters(weighting="static")) == 0.5
    assert focus_weight({"clip_image": -0.1, "clip_crop": 0.3}, P2DPOParameters()) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.619464),
        ({"weighting": "static"}, 0.601345),
        ({"robust": False}, 0.648334),
        ({"focus": False}, 0.554355),
        ({"calibration": 0, "robust": False}, 0.554355),
    ],
)
def test_total_loss_and_its_ablations(changes: dict[str, object], expected: float) -> None:
    """L_focus .648334, L_rob .554355, r = 1.2."""
    loss = METHOD.loss(group(), METHOD.Parameters.model_validate(changes))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("focus", 0.648334), ("robust", 0.554355)])
def test_a_record_with_one_pair_weighs_it_by_one(kind: str, expected: float) -> None:
    assert METHOD.loss(group(pairs=(kind,)), P2DPOParameters()).item() == pytest.approx(expected, abs=1e-6)


def test_robust_pairs_are_judged_under_noise() -> None:
    one = group()
    assert preference_loss(one, "robust", 0.1, "noise").item() == pytest.approx(
        math.log1p(math.exp(-0.1 * ((-40 + 42) - (-41 + 40)))), abs=1e-9
    )


def test_gradients_reach_queried_log_probs_only() -> None:
    """Six policy log-probs with gradient; the other entries are NaN and must not affect it."""
    one = group()
    METHOD.loss(one, P2DPOParameters()).backward()
    grads = {"": one.logps.grad, **{name: policy.grad for name, (policy, _) in one.views.items()}}
    nonzero = {name: (g != 0).nonzero().ravel().tolist() for name, g in grads.items() if g is not None}
    assert nonzero == {"": [0, 1], "enhanced": [0], "degraded": [0], "noise": [2, 3]}
    assert all(torch.isfinite(g).all() for g in grads.values() if g is not None)
    enhanced, degraded = grads["enhanced"], grads["degraded"]
    assert enhanced is not None
    assert degraded is not None
    assert enhanced[0] < 0 < degraded[0]  # it raises log pi(y_w | aug) and lowers log pi(y_w | deg)


@pytest.mark.parametrize(
    ("changes", "views", "looks"),
    [
        ({}, ("original", "enhanced", "degraded", "noise"), [("original", (0, 1)), ("enhanced", (0,)), ("degraded", (0,)), ("noise", (2, 3))]),
        ({"calibration": 0}, ("original", "noise"), [("original", (0, 1)), ("noise", (2, 3))]),
        ({"focus": False}, ("noise",), [("noise", (2, 3))]),
        ({"robust": False}, ("original", "enhanced", "degraded"), [("original", (0, 1)), ("enhanced", (0,)), ("degraded", (0,))]),
    ],
)  # fmt: skip
def test_an_ablation_asks_for_no_more_than_it_needs(
    changes: dict[str, object], views: tuple[str, ...], looks: list[tuple[str, tuple[int, ...]]]
) -> None:
    parameters = METHOD.Parameters.model_validate(changes)
    assert [s.view for s in METHOD.stored(parameters, "original")] == list(views)
    pairs = {"focus": (0, 1), "robust": (2, 3)}
    assert METHOD.looks([0.0] * 4, pairs, parameters, "original") == [Look(*one) for one in looks]
    assert METHOD.looks([0.0] * 2, {"robust": (0, 1)}, parameters, "original") == (
        [Look("noise", (0, 1))] if parameters.robust else []  # type: ignore[attr-defined]
    )


def test_metrics_have_the_same_names_whatever_the_record() -> None:
    parameters = P2DPOParameters()
    names = {tuple(METHOD.metrics(group(pairs=p), parameters)) for p in (("focus", "robust"), ("focus",), ("robust",))}
    assert len(names) == 1
    found = METHOD.metrics(group(), parameters)
    assert found["margin"] == pytest.approx(3.0)
    assert found["robust_margin"] == pytest.approx(3.0)
    assert found["chosen_degraded_logps"] == pytest.approx(-26)


def test_parameters_are_closed() -> None:
    with pytest.raises(ValidationError):
        METHOD.Parameters.model_validate({"lambda_calib": 0.3})
