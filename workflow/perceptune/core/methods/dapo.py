"""DAPO (arXiv:2503.14476): clip-higher, token-level mean, no reference model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perceptune.core.methods.grpo import GRPO, GRPOParameters, Weight


class DAPOParameters(GRPOParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """The probability ratio is clipped above 1 plus this."""
    beta: Weight = 0.0
    """Weight of the KL divergence from the base model; 0 disables it."""


class DAPO(GRPO):
    """The loss of DAPO; its dynamic sampling is `keep` of the config's batch selections."""

    name = "dapo"
    Parameters = DAPOParameters


METHOD = DAPO()
