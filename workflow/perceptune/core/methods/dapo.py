"""DAPO (arXiv:2503.14476): clip-higher, token mean, no reference."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perceptune.core.methods.grpo import GRPO, GRPOParameters, Weight


class DAPOParameters(GRPOParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """The ratio counts up to 1 plus this."""
    beta: Weight = 0.0
    """Weight of the divergence from the base model; 0 leaves it out."""


class DAPO(GRPO):
    """Its dynamic sampling is not a loss: see `keep` of the config's batch blocks."""

    name = "dapo"
    Parameters = DAPOParameters


METHOD = DAPO()
