"""Contrastive decoding, against a reference vector."""

import math

import pytest
import torch
from perceptune.core.views.contrastive_decoding import amplified

EXPERT = torch.tensor([3, 2.5, 0.5, -1])
AMATEUR = torch.tensor([2, 3, 1.5, 0.0])


@pytest.mark.parametrize(
    ("strength", "logits", "probabilities"),
    [(0.1, [3.1, 2.45], [0.657, 0.343]), (1.0, [4, 2], [0.8808, 0.1192])],
)
def test_vectors(strength: float, logits: list[float], probabilities: list[float]) -> None:
    found = amplified(EXPERT, AMATEUR, strength, 0.1)
    assert found[:2].tolist() == pytest.approx(logits, abs=1e-6)
    assert found[2:].tolist() == [-math.inf, -math.inf]  # below 3 + ln 0.1 = 0.6974
    assert found.softmax(0)[:2].tolist() == pytest.approx(probabilities, abs=1e-3)


def test_temperature_comes_after() -> None:
    found = amplified(EXPERT, AMATEUR, 0.1, 0.1)
    assert (found / 0.2).softmax(0)[:2].tolist() == pytest.approx([0.9627, 0.0373], abs=1e-4)


def test_nothing_is_added_with_strength_0_and_nothing_cut_with_plausibility_0() -> None:
    assert torch.equal(amplified(EXPERT, AMATEUR, 0.0, 0.0), EXPERT)
    assert amplified(EXPERT, AMATEUR, 0.0, 0.0).softmax(0).tolist() == pytest.approx(
        [0.5858, 0.3553, 0.0481, 0.0107], abs=1e-4
    )


def test_each_row_has_its_own_numbers() -> None:
    """With shapes as in the logits processor: strength and plausibility (pairs, 1)."""
    rows = amplified(
        EXPERT.expand(2, 4), AMATEUR.expand(2, 4), torch.tensor([[0.1], [0.0]]), torch.tensor([[0.1], [0.0]])
    )
    assert torch.equal(rows[0], amplified(EXPERT, AMATEUR, 0.1, 0.1))
    assert torch.equal(rows[1], EXPERT)
