"""GRPO (arXiv:2402.03300): clipped steps on groups of the policy's own samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from perceptune.core.methods.method import MethodParameters, Stored
from perceptune.core.methods.rollout import RolloutMethod, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from perceptune.core.policy_gradient import Aggregation, Surrogate

Weight = Annotated[float, Field(ge=0)]


class GRPOParameters(MethodParameters):
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio of new to old probability counts down to 1 minus this."""
    clip_high: Annotated[float, Field(gt=0)] = 0.3
    """The ratio counts up to 1 plus this; PAPO's GRPO has 0.3, CPPO's 0.2."""
    dual_clip: Annotated[float, Field(gt=1)] | None = 3.0
    """Largest ratio that counts where the advantage is negative; null: no limit."""
    beta: Weight = 0.01
    """Weight of the divergence from the base model; 0 leaves it out."""
    kl: Literal["k1", "k2", "k3", "abs"] = "k3"
    """Its estimator."""
    scale: Literal["group", "none"] = "group"
    """Advantages are divided by their group's standard deviation, or not."""
    epsilon: Weight = 1e-6
    """Added to that standard deviation: 1e-6 in EasyR1 and verl, 1e-4 in TRL."""
    aggregation: Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum_norm", "chunk_token_mean"] = (
        "token_mean"
    )
    """How token losses become one number: see `docs/methods.md`."""
    chunk: Annotated[int, Field(ge=1)] = 4
    """Responses per mean of `chunk_token_mean`."""
    correction: Literal["none", "token_truncate"] = "none"
    """Importance weights for the mismatch of sampling engine and trainer: none, or each token's ratio, truncated."""
    correction_cap: Annotated[float, Field(gt=0)] = 2.0
    """Largest such weight."""


class GRPO(RolloutMethod):
    name = "grpo"
    Parameters: ClassVar[type[MethodParameters]] = GRPOParameters
    watched: ClassVar[tuple[str, ...]] = (
        "reward", "zero_variance", "length", "truncated", "ratio", "largest_ratio", "clip_high", "clip_low", "policy_gap",
        "largest_policy_gap", "old_kl", "entropy", "nll", "engine_gap", "engine_kl", "reference_kl",
    )  # fmt: skip

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """The policy that answered, and the base model where its divergence has a weight."""
        old, reference = Stored("old", view), Stored("reference", view)
        return (old, reference) if parameters.beta else (old,)

    def aggregation(self, parameters: Any) -> tuple[Aggregation, int]:
        return parameters.aggregation, parameters.chunk

    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """Weighted sum over tokens of the clipped surrogate (times the engine's correction) plus beta times the KL estimate."""
        from perceptune.core.policy_gradient import engine_correction, kl_estimate

        losses = surrogate(tokens, parameters).losses
        if parameters.correction != "none":
            losses = losses * engine_correction(tokens.old, tokens.sampled, parameters.correction_cap)
        if parameters.beta:
            assert tokens.reference is not None
            losses = losses + parameters.beta * kl_estimate(tokens.logps, tokens.reference, parameters.kl)
        return (tokens.weights * losses).sum()

    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """Rewards, ratios, clipped shares, divergences, entropies, lengths, and how far engine and trainer are apart."""
        from perceptune.core.policy_gradient import group_advantages, kl_estimate

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
    """The clipped objective with each response's advantage at all of its tokens."""
    from perceptune.core.policy_gradient import clipped_surrogate

    return clipped_surrogate(
        tokens.logps,
        tokens.old,
        advantages_of(tokens, parameters)[tokens.owners],
        parameters.clip_low,
        parameters.clip_high,
        parameters.dual_clip,
    )


def advantages_of(tokens: Tokens, parameters: Any) -> Tensor:
    """(R,)."""
    from perceptune.core.policy_gradient import group_advantages

    return group_advantages(tokens.rewards, tokens.groups, parameters.scale, parameters.epsilon)


METHOD = GRPO()
