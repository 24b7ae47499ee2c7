"""Dr. GRPO (arXiv:2503.20783): no division by the standard deviation or response length."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perceptune.core.methods.grpo import GRPO, GRPOParameters, Weight


class DrGRPOParameters(GRPOParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The probability ratio is clipped above 1 plus this."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Largest ratio for tokens with a negative advantage (dual clip); null: no limit."""
    beta: Weight = 0.0
    """Weight of the KL divergence from the base model; 0 disables it."""
    scale: Literal["group", "none"] = "none"
    """Whether advantages are divided by the standard deviation of their group's rewards."""
    aggregation: Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "chunk_token_mean"] = (
        "seq_mean_token_sum_norm"
    )
    """Aggregation of token losses: see `docs/methods.md`."""


class DrGRPO(GRPO):
    name = "dr_grpo"
    Parameters = DrGRPOParameters


METHOD = DrGRPO()
