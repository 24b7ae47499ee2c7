"""GRPO, PAPO and CPPO as whole losses against reference vectors, and the properties that they
share."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from perceptune.core.methods.rollout import RolloutMethod, Seen, Tokens
from pydantic import ValidationError
from torch import Tensor

from tests.plugins import METHODS


def method(name: str) -> RolloutMethod:
    found = METHODS[name]
    assert isinstance(found, RolloutMethod)
    return found


def tokens(logps: list[float] | Tensor, old: list[float] | Tensor, **changed: Any) -> Tokens:
    """One response of the best kind in a group of two, so that its advantage is .707107; the other
    has no tokens.
    """
    policy = torch.as_tensor(logps).detach().clone().requires_grad_()
    count = len(policy)
    zeros = torch.zeros(count)
    given = Tokens(
        logps=policy, old=torch.as_tensor(old), sampled=torch.as_tensor(old), reference=None, entropy=zeros,
        old_entropy=zeros, owners=torch.zeros(count, dtype=torch.long), groups=torch.tensor([0, 0]),
        rewards=torch.tensor([1.0, 0.0], dtype=torch.float64), truncated=torch.tensor([False, False]),
        weights=torch.full((count,), 1 / count), share=1 / count,
    )  # fmt: skip
    return replace(given, **changed)


def parameters(name: str, **given: Any) -> Any:
    return METHODS[name].Parameters.model_validate(given)


LOGPS = [-0.10, -0.50, -2.00, -0.02, -3.00]
MASKED = torch.tensor([-1.60, -0.40, -2.00, -8.00, -0.20])
OLD = [-0.12, -0.45, -2.10, -0.02, -2.60]
REFERENCE = torch.tensor([-0.15, -0.60, -1.90, -0.02, -2.90])


def tv6(**changed: Any) -> Tokens:
    return replace(tokens(LOGPS, OLD, reference=REFERENCE, stored={"masked": Seen(MASKED)}), **changed)


@pytest.fixture
def advantage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference vector sets the advantage itself: .8 for all tokens."""
    monkeypatch.setattr(
        "perceptune.core.methods.policy_gradient.group_advantages", lambda rewards, *_: torch.full((len(rewards),), 0.8)
    )


@pytest.mark.usefixtures("advantage")
@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("papo_g", {"gamma": 0.02, "eta": 0.05, "eta_masked": 0.05}, -0.652109),
        ("papo_g", {"gamma": 0.02}, -0.830309),
        ("papo_d", {}, -0.688005),
        ("grpo", {"beta": 0}, -0.759507),
        ("grpo", {}, -0.759507 + 0.01 * 0.003282),
    ],
)
def test_papo_loss(name: str, given: dict[str, float], expected: float) -> None:
    assert method(name).loss(tv6(), parameters(name, **given)).item() == pytest.approx(expected, abs=1.5e-6)


@pytest.mark.usefixtures("advantage")
def test_papo_gradient_and_the_missing_one_of_the_masked_entropy() -> None:
    """With constant masked log-probs; `live` gives the masked view the gradient that `stored`
    lacks.
    """
    given = {"gamma": 0.02, "eta": 0.05, "eta_masked": 0.05}
    one = tv6()
    method("papo_g").loss(one, parameters("papo_g", **given)).backward()
    expected = [-0.176242, -0.161586, -0.187038, -0.173999, -0.117462]
    assert one.logps.grad is not None
    assert one.logps.grad.tolist() == pytest.approx(expected, abs=1.5e-6)
    live = MASKED.clone().requires_grad_()
    one = tv6(live={"masked": Seen(live)})
    loss = method("papo_g").loss(one, parameters("papo_g", **given, masked_entropy="live"))
    loss.backward()
    assert loss.item() == pytest.approx(-0.652109, abs=1.5e-6)
    assert live.grad is not None
    assert live.grad.tolist() == pytest.approx([-0.05 / 5] * 5)
    assert one.logps.grad is not None
    assert one.logps.grad.tolist() == pytest.approx(expected, abs=1.5e-6)


def test_perception_loss_alone() -> None:
    """Value, and gradient for gamma .02 and five tokens."""
    with_loss, without = tv6(old=torch.tensor(LOGPS)), tv6(old=torch.tensor(LOGPS))
    first = method("papo_g").loss(with_loss, parameters("papo_g", beta=0))
    second = method("grpo").loss(without, parameters("grpo", beta=0))
    first.backward()
    second.backward()
    assert (second - first).item() == pytest.approx(0.02 * 3.541729, abs=1e-6)
    assert with_loss.logps.grad is not None and without.logps.grad is not None
    difference = with_loss.logps.grad - without.logps.grad
    assert difference.tolist() == pytest.approx([-0.003107, 0.000421, 0, -0.003999, 0], abs=1e-6)


def test_the_recompute_switch_gives_the_masked_view_the_opposite_gradient() -> None:
    """k3 depends on the difference of the two log-probs only. With the switch, the masked view gets
    the gradients of both of its terms, and no stored log-probs of it are needed."""
    given = {"beta": 0, "gamma": 0.02, "eta_masked": 0.05}
    switch = {"masked_kl": "live", "masked_entropy": "live"}
    live = MASKED.clone().requires_grad_()
    one = tv6(stored={}, live={"masked": Seen(live)})
    other = tv6()
    loss = method("papo_g").loss(one, parameters("papo_g", **given, **switch))
    published = method("papo_g").loss(other, parameters("papo_g", **given))
    loss.backward()
    published.backward()
    assert loss.item() == published.item()
    assert one.logps.grad is not None and other.logps.grad is not None and live.grad is not None
    assert torch.equal(one.logps.grad, other.logps.grad)
    assert live.grad.tolist() == pytest.approx([g - 0.01 for g in (0.003107, -0.000421, 0, 0.003999, 0)], abs=1e-6)
    settings = parameters("papo_g", **given, **switch)
    assert ("old", "masked") not in method("papo_g").stored(settings, "original")
    assert method("papo_g").live(settings) == ("masked",)
    with torch.no_grad():
        metrics = method("papo_g").metrics(tv6(stored={}, live={"masked": Seen(MASKED)}), settings)
    assert metrics["perception_kl"] == pytest.approx(3.541729, abs=1e-6)


def test_papo_metrics_show_the_signs_of_collapse() -> None:
    with torch.no_grad():
        found = method("papo_g").metrics(tv6(), parameters("papo_g"))
    assert found["perception_kl"] == pytest.approx(3.541729, abs=1e-6)
    assert found["masked_likelier"] == pytest.approx(2 / 5)
    assert found["masked_far_likelier"] == pytest.approx(1 / 5)
    assert found["nll"] == pytest.approx(1.124)
    assert found["masked_nll"] == pytest.approx(2.44)
    assert found["reference_kl"] == pytest.approx(0.003282, abs=1e-6)
    assert found["ratio"] == pytest.approx(sum([1.020201, 0.951229, 1.105171, 1, 0.670320]) / 5, abs=1e-6)


@pytest.mark.parametrize("name", ["papo_g", "papo_d", "cppo"])
def test_without_coefficients_every_method_is_its_baseline_bit_for_bit(name: str) -> None:
    """The same loss, gradient and requirements."""
    none = {"gamma": 0, "eta": 0, "eta_masked": 0} if name.startswith("papo") else {"contrast": 0}
    same = {"clip_high": 0.25, "beta": 0.01}
    one, other = tv6(), tv6()
    first = method(name).loss(one, parameters(name, **none, **same))
    second = method("grpo").loss(other, parameters("grpo", **same))
    first.backward()
    second.backward()
    assert torch.equal(first, second)
    assert one.logps.grad is not None and other.logps.grad is not None
    assert torch.equal(one.logps.grad, other.logps.grad)
    assert method(name).stored(parameters(name, **none, **same), "original") == method("grpo").stored(
        parameters("grpo", **same), "original"
    )
    assert not method(name).live(parameters(name, **none))


def test_a_mask_that_hides_nothing_has_no_perception_loss() -> None:
    """Value 0 and gradient 0."""
    same = tv6(stored={"masked": Seen(torch.tensor(LOGPS))})
    plain = tv6()
    first = method("papo_g").loss(same, parameters("papo_g"))
    second = method("grpo").loss(plain, parameters("grpo"))
    first.backward()
    second.backward()
    assert first.item() == second.item()
    assert same.logps.grad is not None and plain.logps.grad is not None
    assert torch.equal(same.logps.grad, plain.logps.grad)


SAMPLED = torch.tensor([0, 1, 1])
ANCHOR = torch.tensor([[2, 0, 0, -1], [1, 1, 0, 0], [0.5, 2.5, 0, -0.5]])
POSITIVE = torch.tensor([[1.8, 0.1, 0, -1], [1, 0.9, 0.1, 0], [0.4, 2.2, 0.1, -0.4]])
NEGATIVE = torch.tensor([[0.6, 0.3, 0.2, 0], [1.2, 1, -0.2, -0.2], [0.3, 0.9, 0.2, 0]])


def seen(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs of the sampled tokens, as leaves, and entropies."""
    distribution = torch.distributions.Categorical(logits=logits)
    return distribution.log_prob(SAMPLED).detach().requires_grad_(), distribution.entropy()


def kl(logits: Tensor) -> Tensor:
    one, other = (torch.distributions.Categorical(logits=one) for one in (ANCHOR, logits))
    return torch.distributions.kl_divergence(one, other)


def tv8(
    name: str = "cppo", positive: Tensor = POSITIVE, negative: Tensor = NEGATIVE, **given: Any
) -> tuple[Tokens, Any]:
    settings = parameters(name, beta=0, **given)
    (anchor, entropy), (kept, _), (lacking, removed) = seen(ANCHOR), seen(positive), seen(negative)
    views = {
        "preserving": Seen(kept, kl=kl(positive)),
        "removing": Seen(lacking, removed, kl(negative)),
    }
    one = tokens(anchor, anchor.detach(), entropy=entropy, old_entropy=entropy, live=views, stored=views)
    one = replace(one, logps=anchor)
    chosen = method(name).select(one, settings)
    assert chosen is not None
    return replace(one, selected=chosen, selected_share=1 / max(int(chosen.sum()), 1)), settings


def test_cppo_selects_the_token_that_needs_the_image() -> None:
    one, _ = tv8()
    assert one.logps.tolist() == pytest.approx([-0.277978, -1.006409, -0.236816], abs=1e-6)
    assert one.entropy.tolist() == pytest.approx([0.801056, 1.275350, 0.730219], abs=1e-6)
    assert one.selected is not None
    assert one.selected.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("divergence", "per_token"),
    [
        ("k3", [0.077947, 0.706001, 0.161196]),
        ("k1", [0.000596, 0.958405, 0.002793]),
        ("full", [0.023824, 0.643891, 0.047518]),
    ],
)
def test_contrast_per_token_and_its_loss(divergence: str, per_token: list[float]) -> None:
    """All three estimators; the loss is .01 times the selected token's."""
    one, settings = tv8(divergence=divergence)
    cppo: Any = method("cppo")
    assert cppo.contrast(one, settings).tolist() == pytest.approx(per_token, abs=1.5e-6)
    plain = method("grpo").loss(replace(one), parameters("grpo", beta=0, clip_high=0.2))
    assert (cppo.loss(one, settings) - plain).item() == pytest.approx(0.01 * per_token[2], abs=1.5e-7)


def test_k1_of_the_contrast_is_limited_to_10_and_that_of_the_reference_is_not() -> None:
    """As in CPPO's asynchronous code and in EasyR1; the removing view is 40 below."""
    one, settings = tv8(divergence="k1", tokens="all", gate=False, temperature=1.0)
    lacking = (one.logps - 40).detach().requires_grad_()
    far = replace(one, live={**one.live, "removing": replace(one.live["removing"], logps=lacking)})
    contrast = method("cppo").contrast(far, settings)  # type: ignore[attr-defined]
    kept = (one.logps - one.live["preserving"].logps).tolist()
    assert contrast.tolist() == pytest.approx([math.log1p(math.exp(k - 10)) for k in kept], rel=1e-5)
    contrast.sum().backward()
    assert lacking.grad is not None
    assert not lacking.grad.any()
    one = tokens([-1.0, -2.0], [-1.0, -2.0], reference=torch.tensor([-401.0, -2.0]))
    with_kl, without = (method("grpo").loss(one, parameters("grpo", beta=beta, kl="k1")).item() for beta in (0.01, 0.0))
    assert with_kl - without == pytest.approx(0.01 * 400 / 2, rel=1e-5)


def test_contrast_gradients_of_the_three_views_sum_to_zero() -> None:
    """For every token, as the mean over that token alone."""
    one, settings = tv8(tokens="all", gate=False)
    method("cppo").contrast(one, settings).sum().backward()  # type: ignore[attr-defined]
    grads = [one.logps.grad, one.live["preserving"].logps.grad, one.live["removing"].logps.grad]
    expected = [
        [-0.368326, 0.227447, -0.615700],
        [-0.047018, -0.385314, -0.103643],
        [0.415344, 0.157867, 0.719343],
    ]
    for found, wanted in zip(grads, expected, strict=True):
        assert found is not None
        assert found.tolist() == pytest.approx(wanted, abs=1.5e-6)
    assert torch.stack(grads).sum(0).abs().max() < 1e-6  # type: ignore[arg-type]


def test_all_tokens_without_gate() -> None:
    """The mean over all tokens is .315048."""
    one, settings = tv8(tokens="all", contrast=1.0)
    plain = method("grpo").loss(one, parameters("grpo", beta=0, clip_high=0.2))
    assert (method("cppo").loss(one, settings) - plain).item() == pytest.approx(0.315048, abs=1e-6)


def test_as_many_random_tokens_as_perception_tokens() -> None:
    """Here one of three, drawn once per response; over many responses each about equally often."""
    one, settings = tv8(tokens="random")
    assert one.selected is not None
    assert one.selected.sum() == 1
    again = method("cppo").select(replace(one, selected=None), settings)
    assert again is not None and torch.equal(again, one.selected)
    drawn = torch.zeros(3)
    for number in range(300):
        drawn += method("cppo").select(replace(one, old=one.old - number / 7), settings)  # type: ignore[operator]
    assert drawn.sum() == 300
    assert drawn.min() > 70
    worse = replace(one, rewards=torch.tensor([0.0, 1.0]).double())
    assert not method("cppo").select(worse, settings).any()  # type: ignore[union-attr]


def test_responses_without_advantage_are_not_contrasted() -> None:
    """A <= 0 gives 0."""
    one, settings = tv8()
    worse = replace(one, rewards=torch.tensor([0.0, 1.0]).double())
    assert not method("cppo").select(worse, settings).any()  # type: ignore[union-attr]
    ungated = parameters("cppo", beta=0, gate=False)
    assert method("cppo").select(worse, ungated).any()  # type: ignore[union-attr]


def test_identical_views_have_no_gradient() -> None:
    """log 2 without the token mask, nothing with it; the gradient is 0 either way."""
    one, settings = tv8(positive=ANCHOR, negative=ANCHOR, tokens="all")
    cppo: Any = method("cppo")
    contrast = cppo.contrast(one, settings)
    assert contrast.tolist() == pytest.approx([0.693147] * 3, abs=1e-6)
    contrast.sum().backward()
    for leaf in (one.logps, *(view.logps for view in one.live.values())):
        assert leaf.grad is not None
        assert not leaf.grad.any()
    one, settings = tv8(positive=ANCHOR, negative=ANCHOR)
    assert one.selected is not None
    assert not one.selected.any()
    plain = method("grpo").loss(one, parameters("grpo", beta=0, clip_high=0.2))
    assert torch.equal(cppo.loss(one, settings), plain)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.groups == "rollouts"])
def test_at_the_first_step_ratios_are_1_and_nothing_is_clipped(name: str) -> None:
    one = tokens(
        LOGPS,
        LOGPS,
        reference=REFERENCE,
        stored={v: Seen(MASKED, MASKED.abs()) for v in ("masked", "preserving", "removing")},
    )
    one = replace(one, live=one.stored)
    with torch.no_grad():
        found = method(name).metrics(one, parameters(name))
    assert (found["ratio"], found["largest_ratio"]) == (1, 1)
    assert [found[name] for name in ("clip_fraction", "clip_high", "clip_low")] == [0, 0, 0]
    assert found["old_kl"] == 0


@pytest.mark.parametrize(
    ("name", "given", "worst"),
    [("dr_grpo", {}, 8.0), ("grpo", {"scale": "none"}, 3.0), ("dapo", {"scale": "none"}, 3.0)],
)
def test_dr_grpo_has_no_dual_clip_by_default(name: str, given: dict[str, Any], worst: float) -> None:
    """A = -.5 at a ratio of 8: the loss is 8 x .5, or at most 3 x .5 with the dual clip."""
    ratio = math.log(8)
    one = tokens([ratio], [0.0], owners=torch.tensor([1]), groups=torch.tensor([0, 0]))
    loss = method(name).loss(one, parameters(name, beta=0, **given))
    assert loss.item() == pytest.approx(0.5 * worst, rel=1e-6)


def test_clip_metrics() -> None:
    """EasyR1 counts tokens whose clipped loss is the larger one; the others split them by sign.

    At limits of .2 and a dual clip of 3, for ratios of .5, 1, 1.5 and 4: with A > 0, 1.5 and 4 are
    clipped; with A < 0, .5 is, and 4 has the smaller loss of the dual clip.
    """
    ratios = torch.tensor([0.5, 1.0, 1.5, 4.0]).log().tolist()
    one = tokens(
        ratios * 2, [0.0] * 8, owners=torch.tensor([0] * 4 + [1] * 4), groups=torch.tensor([0, 0]), reference=None
    )
    with torch.no_grad():
        found = method("grpo").metrics(one, parameters("grpo", beta=0, clip_high=0.2))
    assert [found[name] for name in ("clip_fraction", "clip_high", "clip_low")] == [3 / 8, 2 / 8, 2 / 8]


def test_metrics_count_groups_and_lengths() -> None:
    one = tokens(
        [-1.0] * 6, [-1.0] * 6, owners=torch.tensor([0, 0, 0, 1, 2, 3]), groups=torch.tensor([0, 0, 1, 1]),
        rewards=torch.tensor([1.0, 1.0, 0.0, 1.0]).double(), truncated=torch.tensor([True, False, False, False]),
        sampled=torch.tensor([-1.5] * 6),
    )  # fmt: skip
    with torch.no_grad():
        found = method("grpo").metrics(one, parameters("grpo", beta=0))
    assert found["zero_variance"] == 0.5
    assert found["length"] == 1.5
    assert found["truncated"] == 0.25
    assert found["reward"] == 0.75
    assert found["engine_gap"] == pytest.approx(0.5)


def test_the_engine_correction_weighs_the_policy_term_only() -> None:
    one = tv6(sampled=torch.tensor([-0.12, -0.45, -2.10, -0.02, -4.60]))
    plain, corrected = parameters("grpo", beta=0), parameters("grpo", beta=0, correction="token_truncate")
    before, after = (method("grpo").loss(one, given).item() for given in (plain, corrected))
    last = -(0.5**0.5) * 0.670320 / 5  # the advantage of the better of two, times the ratio: corrected by 2, the cap
    assert after - before == pytest.approx(last, abs=1e-6)
    with_kl = [parameters("grpo", beta=1, correction=kind) for kind in ("none", "token_truncate")]
    before, after = (method("grpo").loss(one, given).item() for given in with_kl)
    assert after - before == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "given"), [("grpo", {"clip_low": 1.0}), ("papo_g", {"gamma": -1}), ("cppo", {"share": 2}), ("grpo", {"correction": "sequence_mask"}), ("grpo", {"gamma": 0.1})]
)  # fmt: skip
def test_impossible_parameters_are_refused(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parameters(name, **given)
