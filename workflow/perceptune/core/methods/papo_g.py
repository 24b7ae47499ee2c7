"""PAPO_G (arXiv:2507.06448): GRPO plus a divergence from the policy on a masked image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from perceptune.core.methods.grpo import GRPO, GRPOParameters, Weight
from perceptune.core.methods.method import MethodParameters, Stored, ViewName
from perceptune.core.methods.rollout import Seen, Tokens

if TYPE_CHECKING:
    from torch import Tensor


OWN = (
    "perception_kl", "perception_kl_variance", "perception_kl_p99", "masked_likelier", "masked_far_likelier", "masked_nll",
)  # fmt: skip
"""Metrics in addition to GRPO's."""


class PAPOGParameters(GRPOParameters):
    gamma: Weight = 0.02
    """Weight of the implicit perception loss: KL divergence from the policy on the masked image."""
    eta: Weight = 0.0
    """Weight of the entropy loss on the image: eta_1. 0.05 for the paper's 7B model."""
    eta_masked: Weight = 0.0
    """Weight of the entropy loss on the masked image: eta_2, in the paper always equal to `eta`."""
    masked_entropy: Literal["stored", "live"] = "stored"
    """Policy of the masked entropy. `stored`: the behaviour policy, as published, so its gradient
    is zero; `live`: the policy under training."""
    masked_kl: Literal["stored", "live"] = "stored"
    """Policy of the masked log-probs in the perception loss. `stored`: the behaviour policy, as
    published; `live`: the policy under training, with gradient through the masked view as well.
    `live` for both is the authors' switch `RECOMPUTE_AUG_LOG_PROBS`."""
    mask: ViewName = "masked"
    """Masked view, a view of this config."""


class PAPOG(GRPO):
    name = "papo_g"
    Parameters: ClassVar[type[MethodParameters]] = PAPOGParameters
    watched = (*GRPO.watched, *OWN)

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """GRPO's, and the behaviour policy's masked log-probs if a weight needs them."""
        needed = "stored" in _policies(parameters)
        return (*super().stored(parameters, view), *([Stored("old", parameters.mask)] if needed else []))

    def live(self, parameters: Any) -> tuple[str, ...]:
        """The masked view if one of its terms has a gradient."""
        return (parameters.mask,) if "live" in _policies(parameters) else ()

    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """GRPO's loss - gamma mean k3(policy, masked) + eta mean(-log p) + eta_masked mean(-log p
        masked).

        Stored masked log-probs are constants. Both entropies are means over all tokens of the step.
        """
        from perceptune.core.methods.policy_gradient import kl_estimate

        loss = super().loss(tokens, parameters)
        if parameters.gamma:
            masked = _masked(tokens, parameters.masked_kl)[parameters.mask].logps
            loss = loss - parameters.gamma * (tokens.weights * kl_estimate(tokens.logps, masked)).sum()
        if parameters.eta:
            loss = loss - parameters.eta * tokens.share * tokens.logps.sum()
        if parameters.eta_masked:
            masked = _masked(tokens, parameters.masked_entropy)[parameters.mask].logps
            loss = loss - parameters.eta_masked * tokens.share * masked.sum()
        return loss

    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """GRPO's metrics, and signs of collapse: masked KL, likelihood and entropy."""
        from perceptune.core.methods.policy_gradient import kl_estimate

        metrics = super().metrics(tokens, parameters)
        metrics |= dict.fromkeys(OWN, math.nan)
        seen = {**tokens.stored, **tokens.live}.get(parameters.mask)
        if seen is not None:
            metrics["masked_nll"] = -float(seen.logps.mean())
        if (compared := _masked(tokens, parameters.masked_kl).get(parameters.mask)) is not None:
            masked = compared.logps
            divergence, rise = kl_estimate(tokens.logps, masked).double(), masked - tokens.logps
            values = (
                divergence.mean(),
                divergence.var(unbiased=False),
                divergence.quantile(0.99),
                (rise > 0).double().mean(),
                (rise > 2.610869).double().mean(),  # k3 is clamped there and has no gradient
            )
            metrics |= {name: float(value) for name, value in zip(OWN[:-1], values, strict=True)}
        return metrics


def _policies(parameters: Any) -> set[str]:
    """The policies whose masked log-probs the loss needs: `stored` and `live`."""
    terms = ((parameters.gamma, parameters.masked_kl), (parameters.eta_masked, parameters.masked_entropy))
    return {policy for weight, policy in terms if weight}


def _masked(tokens: Tokens, policy: Literal["stored", "live"]) -> Mapping[str, Seen]:
    return tokens.live if policy == "live" else tokens.stored


METHOD = PAPOG()
