"""Dr. GRPO (arXiv:2503.20783): no division by the group's spread, nor by a response's length."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perceptune.core.methods.grpo import GRPO, GRPOParameters, Weight


class DrGRPOParameters(GRPOParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The ratio counts up to 1 plus this."""
    beta: Weight = 0.0
    """Weight of the divergence from the base model; 0 leaves it out."""
    scale: Literal["group", "none"] = "none"
    """Advantages are divided by their group's standard deviation, or not."""
    aggregation: Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "chunk_token_mean"] = (
        "seq_mean_token_sum_norm"
    )
    """How token losses become one number: see `docs/methods.md`."""


class DrGRPO(GRPO):
    name = "dr_grpo"
    Parameters = DrGRPOParameters


METHOD = DrGRPO()
