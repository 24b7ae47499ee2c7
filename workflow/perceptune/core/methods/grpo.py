"""GRPO (arXiv:2402.03300): clipped policy gradients on groups of the policy's own responses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from perceptune.core.methods.method import MethodParameters, Stored
from perceptune.core.methods.rollout import RolloutMethod, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from perceptune.core.methods.policy_gradient import Aggregation, Surrogate

Weight = Annotated[float, Field(ge=0)]


class GRPOParameters(MethodParameters):
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio of new to old probability is clipped below 1 minus this."""
    clip_high: Annotated[float, Field(gt=0)] = 0.3
    """The probability ratio is clipped above 1 plus this; 0.3 in PAPO's GRPO, 0.2 in CPPO's."""
    dual_clip: Annotated[float, Field(gt=1)] | None = 3.0
    """Largest ratio for tokens with a negative advantage (dual clip); null: no limit."""
    beta: Weight = 0.01
    """Weight of the KL divergence from the base model; 0 disables it."""
    kl: Literal["k1", "k2", "k3", "abs"] = "k3"
    """Estimator of that divergence."""
    scale: Literal["group", "none"] = "group"
    """Whether advantages are divided by the standard deviation of their group's rewards."""
    epsilon: Weight = 1e-6
    """Added to that standard deviation: 1e-6 in EasyR1 and verl, 1e-4 in TRL."""
    aggregation: Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "chunk_token_mean"] = (
        "token_mean"
    )
    """Aggregation of token losses: see `docs/methods.md`."""
    chunk: Annotated[int, Field(ge=1)] = 4
    """`chunk_token_mean`: responses per chunk."""
    correction: Literal["none", "token_truncate"] = "none"
    """Importance weights against the engine-trainer mismatch: none, or truncated per token."""
    correction_cap: Annotated[float, Field(gt=0)] = 2.0
    """Largest importance weight."""


class GRPO(RolloutMethod):
    name = "grpo"
    Parameters: ClassVar[type[MethodParameters]] = GRPOParameters
    watched: ClassVar[tuple[str, ...]] = (
        "reward", "zero_variance", "length", "truncated", "ratio", "largest_ratio", "clip_fraction", "clip_high", "clip_low",
        "policy_gap", "largest_policy_gap", "old_kl", "entropy", "nll", "engine_gap", "engine_kl", "reference_kl",
    )  # fmt: skip

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """Log-probs of the behaviour policy, and of the base model unless `beta` is 0."""
        old, reference = Stored("old", view), Stored("reference", view)
        return (old, reference) if parameters.beta else (old,)

    def aggregation(self, parameters: Any) -> tuple[Aggregation, int]:
        return parameters.aggregation, parameters.chunk

    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """Weighted sum over tokens of surrogate * engine correction + beta * KL estimate."""
        from perceptune.core.methods.policy_gradient import engine_correction, kl_estimate

        losses = surrogate(tokens, parameters).losses
        if parameters.correction != "none":
            losses = losses * engine_correction(tokens.old, tokens.sampled, parameters.correction_cap)
        if parameters.beta:
            assert tokens.reference is not None
            losses = losses + parameters.beta * kl_estimate(tokens.logps, tokens.reference, parameters.kl)
        return (tokens.weights * losses).sum()

    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """Rewards, ratios, clip fractions, divergences, entropies, lengths, engine gap."""
        from perceptune.core.methods.policy_gradient import group_advantages, kl_estimate

        found, difference = surrogate(tokens, parameters), tokens.logps - tokens.old
        advantages = group_advantages(tokens.rewards, tokens.groups, "none")
        varied = tokens.groups.unique()[[bool(advantages[tokens.groups == g].any()) for g in tokens.groups.unique()]]
        gap = tokens.old - tokens.sampled
        metrics: dict[str, float | Tensor] = {
            "reward": tokens.rewards.mean(),
            "zero_variance": 1 - len(varied) / len(tokens.groups.unique()),
            "length": tokens.lengths.double().mean(),
            "truncated": tokens.truncated.double().mean(),
            "ratio": difference.exp().mean(),
            "largest_ratio": difference.exp().max(),
            "clip_fraction": found.clipped.double().mean(),
            "clip_high": found.clipped_high.double().mean(),
            "clip_low": found.clipped_low.double().mean(),
            "policy_gap": difference.abs().mean(),
            "largest_policy_gap": difference.abs().max(),
            "old_kl": kl_estimate(tokens.old, tokens.logps).mean(),
            "entropy": tokens.entropy.mean(),
            "nll": -tokens.logps.mean(),
            "engine_gap": gap.abs().mean(),
            "engine_kl": kl_estimate(tokens.sampled, tokens.old).mean(),
            "reference_kl": math.nan
            if tokens.reference is None
            else kl_estimate(tokens.logps, tokens.reference, parameters.kl).mean(),
        }
        return {name: float(value) for name, value in metrics.items()}


def surrogate(tokens: Tokens, parameters: Any) -> Surrogate:
    """The clipped surrogate, with each response's advantage at all of its tokens."""
    from perceptune.core.methods.policy_gradient import clipped_surrogate

    return clipped_surrogate(
        tokens.logps,
        tokens.old,
        advantages_of(tokens, parameters)[tokens.owners],
        parameters.clip_low,
        parameters.clip_high,
        parameters.dual_clip,
    )


def advantages_of(tokens: Tokens, parameters: Any) -> Tensor:
    """The advantage of each response, (R,) float32."""
    from perceptune.core.methods.policy_gradient import group_advantages

    return group_advantages(tokens.rewards, tokens.groups, parameters.scale, parameters.epsilon)


METHOD = GRPO()
