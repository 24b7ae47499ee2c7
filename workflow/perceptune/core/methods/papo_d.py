"""PAPO_D (arXiv:2507.06448): PAPO with DAPO's clipping, no reference, both entropies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perceptune.core.methods.grpo import Weight
from perceptune.core.methods.papo_g import PAPOG, PAPOGParameters


class PAPODParameters(PAPOGParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """The probability ratio is clipped above 1 plus this."""
    beta: Weight = 0.0
    """Weight of the KL divergence from the base model; 0 disables it."""
    gamma: Weight = 0.01
    """Weight of the implicit perception loss: KL divergence from the policy on the masked image."""
    eta: Weight = 0.03
    """Weight of the entropy loss on the image: eta_1."""
    eta_masked: Weight = 0.03
    """Weight of the entropy loss on the masked image: eta_2."""


class PAPOD(PAPOG):
    name = "papo_d"
    Parameters = PAPODParameters


METHOD = PAPOD()
