"""The loss and the gradient of a step in a round, compared with plain loops over separate forward
passes and with methods that they equal.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.core.views.view import Recipe
from perceptune.engines.training import branch_attention, shared_prefix
from perceptune.engines.training import rollout_trainer as engine
from perceptune.engines.training.groups import Rollout, Shown
from perceptune.models.loading import load_model
from torch import Tensor

from tests.parity.adapters import largest_difference

from .reference import Reference
from .rounds import CASES, STRONG, VIEWS, a_round, first_drawn, fresh, with_terms

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", CASES)
def test_a_step_equals_plain_loops_over_separate_passes(
    model: ModelBlock,
    rollouts: list[Rollout],
    gradients: list[dict[str, Tensor]],
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loss and gradient of a policy that differs from the sampling policy, with micro-batches and
    split rows and logits; CPPO's in the layout of GPUs.
    """
    (name, given), groups = CASES[case], rollouts[2:]
    monkeypatch.setattr(branch_attention, "suits", lambda *_: name == "cppo")
    monkeypatch.setattr(shared_prefix, "LOGITS_AT_ONCE", 11 * load_model(model).get_output_embeddings().weight.shape[0])
    changes = {"batch_size": 6, "micro_batch_size": 2, "max_grad_norm": 1e9}
    _, (log, _) = a_round(model, groups, tmp_path, name, given, fresh(model, 0.02), budget=9, **changes)
    policy = fresh(model, 0.02)
    # the order matters for chunks
    loss = Reference(model, policy, first_drawn(groups, 1, 6)).loss(name, given)
    loss.backward()
    assert len(log) == len(gradients) == 1
    assert log[0]["largest_policy_gap"] > 0.05
    assert log[0]["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    expected = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    size = max(float(g.abs().max()) for g in expected.values())
    assert size > 1e-3
    # k3 of small differences loses precision in float32
    assert largest_difference({n: g.double() for n, g in gradients[0].items()}, expected) < 1e-4 * size
    if name.startswith("cppo"):
        assert log[0]["selected"] > 0
        assert not np.isnan(log[0]["contrast_margin"])


@pytest.mark.parametrize(
    ("name", "none"),
    [
        ("papo_g", {"gamma": 0}),
        ("papo_d", {"gamma": 0, "eta": 0, "eta_masked": 0, "clip_high": 0.3, "beta": 0.01}),
        ("cppo", {"contrast": 0, "clip_high": 0.3}),
    ],
)
def test_without_coefficients_the_adapter_is_grpos_bit_for_bit(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, name: str, none: dict[str, Any]
) -> None:
    """With zero coefficients, PAPO and CPPO reduce to GRPO."""
    expected, _ = a_round(model, rollouts, tmp_path / "grpo")
    found, _ = a_round(model, rollouts, tmp_path / name, name, none)
    assert largest_difference(found, expected) == 0


def test_a_mask_that_hides_nothing_has_no_perception_kl(
    model: ModelBlock, bare: list[Rollout], rollouts: list[Rollout], tmp_path: Path
) -> None:
    """Both views are the same image, so the KL between them is 0."""
    views = {
        "original": bare[0].views["original"],
        "masked": Shown(Recipe("masked", {"share": 0.0}, 5), bare[0].views["original"].messages),
    }
    groups = with_terms(model, load_model(model), [replace(one, views=views) for one in bare], ("original", "masked"))
    _, (log, _) = a_round(model, groups, tmp_path / "a", "papo_g")
    assert log[0]["perception_kl"] == pytest.approx(0, abs=1e-9)
    _, (masked, _) = a_round(model, rollouts, tmp_path / "b", "papo_g")
    assert masked[0]["perception_kl"] > 1e-4


def test_identical_views_have_no_gradient(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, gradients: list[dict[str, Tensor]]
) -> None:
    """The contrast is log 2 for every token if all are selected, and the gradient is that of GRPO."""
    same = [replace(one, views=dict.fromkeys(VIEWS, one.views["original"])) for one in rollouts]
    changes = {"batch_size": 6, "max_grad_norm": 1e9, "policy": fresh(model, 0.02)}
    _, (log, _) = a_round(model, same, tmp_path / "a", "cppo", {**STRONG, "tokens": "all", "gate": False}, **changes)
    changes["policy"] = fresh(model, 0.02)
    _, (plain, _) = a_round(model, same, tmp_path / "b", "grpo", {"clip_high": 0.2}, **changes)
    assert log[0]["loss"] - plain[0]["loss"] == pytest.approx(0.5 * np.log(2), abs=1e-6)
    size = max(float(g.abs().max()) for g in gradients[1].values())
    assert largest_difference(*gradients) < 1e-6 * size


def test_the_gradients_of_the_contrast_sum_to_zero(
    model: ModelBlock, rollouts: list[Rollout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summed over the three views, they cancel, so the sum does not depend on the contrast's
    weight.
    """
    works: list[Any] = []
    original = engine.RolloutTrainer._replayed

    def kept(self: Any, *args: Any) -> Any:
        works.append(original(self, *args))
        return works[-1]

    monkeypatch.setattr(engine.RolloutTrainer, "_replayed", kept)
    for weight in (0.5, 5.0):
        given = {"contrast": weight, "tokens": "all"}
        a_round(model, rollouts, tmp_path / str(weight), "cppo", given, batch_size=6)
    sums = [torch.cat([sum(work.slopes.values()) for work in step]) for step in works]  # type: ignore[misc]
    assert (sums[0] - sums[1]).abs().max() < 1e-5
    of_view = [torch.cat([work.slopes["removing"] for work in step]) for step in works]
    assert (of_view[0] - of_view[1]).abs().max() > 0.01
