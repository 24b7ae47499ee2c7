"""Entropies of nearly certain tokens against float64, and CPPO's choice of tokens by them."""

import numpy as np
import pytest
import torch
from perceptune.core.methods.policy_gradient import perception_scores, perception_tokens
from perceptune.engines.training import shared_prefix
from perceptune.engines.training.shared_prefix import entropies_of, values_of
from torch import Tensor, nn

TOKENS, WORDS = 400, 20_000


class Given(nn.Module):
    """A head whose input is its output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.empty(WORDS, 0)

    def forward(self, states: Tensor) -> Tensor:
        return states


def logits(largest: float, seed: int) -> Tensor:
    """Word 7 is up to 3 above `largest`; the others have a standard deviation of 2.5."""
    generator = torch.Generator().manual_seed(seed)
    found = 2.5 * torch.randn(TOKENS, WORDS, generator=generator)
    found[:, 7] = largest + 3 * torch.rand(TOKENS, generator=generator)
    return found


def exact(values: Tensor) -> np.ndarray:
    """-sum p log p in float64, (T,)."""
    wide = values.double().numpy()
    below = wide - wide.max(axis=1, keepdims=True)
    logps = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return -(np.exp(logps) * logps).sum(axis=1)


@pytest.mark.parametrize("largest", [0.0, 5.0, 15.0, 25.0, 30.0])
def test_entropies_keep_their_digits(largest: float) -> None:
    """At 30 they are about 1e-6, of which a difference of two numbers around 30 would show
    nothing."""
    values = logits(largest, 0)
    found, expected = entropies_of(values), exact(values)
    assert found.dtype == torch.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.numpy(), expected, rtol=5e-6)


def test_entropies_of_certain_and_of_uniform_distributions() -> None:
    certain = torch.zeros(2, 50)
    certain[0, 3], certain[1, 4] = 200.0, 60.0
    assert entropies_of(certain).tolist() == [0.0, pytest.approx(61 * 49 * np.exp(-60), rel=1e-5)]
    assert entropies_of(torch.full((1, 50), -3.0)).item() == pytest.approx(np.log(50), rel=1e-6)
    assert entropies_of(torch.tensor([[7.0]])).item() == 0.0


@pytest.mark.parametrize("largest", [25.0, 30.0])
@pytest.mark.parametrize("score", ["normalised", "difference"])
def test_the_tokens_of_the_contrast_are_those_of_float64(largest: float, score: str) -> None:
    """The signs of the entropy rises and the selected tokens, both views nearly certain."""
    views = [logits(largest, seed) for seed in (1, 2)]
    clean, removed = (values_of(Given(), view, torch.full((TOKENS,), 7)).entropies for view in views)
    here, there = (exact(view) for view in views)
    assert torch.equal(removed > clean, torch.from_numpy(there > here))
    rise = np.maximum(there - here, 0)
    scores = rise / (there + 1e-6) if score == "normalised" else rise
    expected = np.zeros(TOKENS, dtype=bool)
    for start in range(0, TOKENS, 20):  # responses of 20 tokens
        rising = start + np.flatnonzero(scores[start : start + 20] > 0)
        best = rising[np.argsort(-scores[rising], kind="stable")][: max(1, len(rising) // 2)]
        expected[best] = True
    owners = torch.arange(TOKENS) // 20
    found = perception_tokens(perception_scores(clean, removed, score), owners, 0.5, "floor", ties=True)  # type: ignore[arg-type]
    assert found.tolist() == expected.tolist()
    assert 0 < expected.sum() < TOKENS / 2


def test_blocks_of_logits_give_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without gradient; the entropies have none."""
    states, targets = logits(5, 3)[:20].requires_grad_(), torch.arange(20)
    whole = values_of(Given(), states, targets)
    monkeypatch.setattr(shared_prefix, "LOGITS_AT_ONCE", 7 * WORDS)
    parts = values_of(Given(), states, targets)
    with torch.no_grad():
        plain = values_of(Given(), states, targets)
    for found in (parts, plain):
        assert torch.equal(found.logps, whole.logps)
        assert torch.equal(found.entropies, whole.entropies)
    assert parts.logps.requires_grad
    assert not parts.entropies.requires_grad
    np.testing.assert_allclose(
        whole.logps.detach(), states.double().log_softmax(1)[range(20), targets].detach(), rtol=1e-6
    )
