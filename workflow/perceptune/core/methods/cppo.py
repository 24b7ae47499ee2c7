"""CPPO (arXiv:2601.00501): tokens that need the image are told apart from what is left without it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from perceptune.contracts.config import Share
from perceptune.core.methods.grpo import GRPO, GRPOParameters, Weight, advantages_of
from perceptune.core.methods.method import MethodParameters, ViewName
from perceptune.core.methods.rollout import Seen, Tokens

if TYPE_CHECKING:
    from torch import Tensor


OWN = ("selected", "contrast_margin", "removed_entropy", "preserved_nll", "removed_nll")
"""Metrics besides GRPO's."""


class CPPOParameters(GRPOParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The ratio counts up to 1 plus this."""
    contrast: Weight = 0.01
    """Weight of the contrastive perception loss: lambda."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """tau, of the contrast."""
    tokens: Literal["perception", "all"] = "perception"
    """The contrast is about tokens whose entropy rises without the information, or about all of them."""
    share: Share = 0.5
    """Of the tokens whose entropy rises, so many are taken in each response."""
    rounding: Literal["floor", "ceil"] = "floor"
    """Of their number; at least one is taken."""
    ties: bool = True
    """Take also what equals the last one taken."""
    score: Literal["normalised", "difference"] = "normalised"
    """Ranked by the rise as a share of the entropy that it rises to (the code), or by the rise (as the paper is summarised)."""
    gate: bool = True
    """Only responses with a positive advantage."""
    divergence: Literal["k3", "k1", "full"] = "k3"
    """Estimated from the sampled token (k3: the main code, k1: the asynchronous one), or of the whole distribution."""
    preserving: ViewName = "preserving"
    """The view that keeps the information: a view of this config."""
    removing: ViewName = "removing"
    """The view that lacks it."""


class CPPO(GRPO):
    name = "cppo"
    Parameters: ClassVar[type[MethodParameters]] = CPPOParameters
    watched = (*GRPO.watched, *OWN)

    def live(self, parameters: Any) -> tuple[str, ...]:
        """Both views, with gradient."""
        return (parameters.preserving, parameters.removing) if parameters.contrast else ()

    def wants_full_kl(self, parameters: Any) -> bool:
        return parameters.divergence == "full" and bool(parameters.contrast)

    def contrasted(self, tokens: Tokens, parameters: Any) -> tuple[Seen, Seen]:
        """The two views of the contrast: (preserving, removing)."""
        return tokens.live[parameters.preserving], tokens.live[parameters.removing]

    def select(self, tokens: Tokens, parameters: Any) -> Tensor | None:
        """By the entropies of this step: tokens of responses with a positive advantage whose entropy rises most."""
        from perceptune.core.methods.policy_gradient import perception_scores, perception_tokens

        if not parameters.contrast:
            return None
        entropy = self.contrasted(tokens, parameters)[1].entropy
        assert entropy is not None
        scores = perception_scores(tokens.entropy, entropy, parameters.score)
        chosen = perception_tokens(scores, tokens.owners, parameters.share, parameters.rounding, parameters.ties)
        if parameters.tokens == "all":
            chosen = chosen.new_ones(chosen.shape)
        gate = advantages_of(tokens, parameters)[tokens.owners] > 0
        return chosen & gate if parameters.gate else chosen

    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """GRPO's + contrast times the mean over the step's selected tokens of softplus((K+ - K-) / temperature)."""
        loss = super().loss(tokens, parameters)
        if not parameters.contrast:
            return loss
        assert tokens.selected is not None
        chosen = tokens.selected.to(tokens.logps.dtype)
        contrast = self.contrast(tokens, parameters)
        return loss + parameters.contrast * tokens.selected_share * (chosen * contrast).sum()

    def contrast(self, tokens: Tokens, parameters: Any) -> Tensor:
        """The contrastive perception loss of every token, (T,)."""
        from perceptune.core.methods.policy_gradient import contrastive_perception

        kept, lacking = (self._divergence(tokens, seen, parameters) for seen in self.contrasted(tokens, parameters))
        return contrastive_perception(kept, lacking, parameters.temperature)

    def _divergence(self, tokens: Tokens, seen: Seen, parameters: Any) -> Tensor:
        from perceptune.core.methods.policy_gradient import kl_estimate

        if parameters.divergence == "full":
            assert seen.kl is not None
            return seen.kl
        return kl_estimate(tokens.logps, seen.logps, parameters.divergence)

    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """GRPO's, and how many tokens are selected, and how far apart the two views are for them."""
        metrics = super().metrics(tokens, parameters)
        metrics |= dict.fromkeys(OWN, math.nan)
        if not parameters.contrast or tokens.selected is None:
            return metrics
        kept, lacking = self.contrasted(tokens, parameters)
        gated = advantages_of(tokens, parameters) > 0 if parameters.gate else tokens.rewards == tokens.rewards
        if gated.any():
            metrics["selected"] = float(tokens.selected.sum() / gated.sum())
        if tokens.selected.any():
            margin = self._divergence(tokens, lacking, parameters) - self._divergence(tokens, kept, parameters)
            metrics["contrast_margin"] = float(margin[tokens.selected].mean()) / parameters.temperature
        assert lacking.entropy is not None
        metrics |= {"removed_entropy": float(lacking.entropy.mean())}
        return metrics | {"preserved_nll": -float(kept.logps.mean()), "removed_nll": -float(lacking.logps.mean())}


METHOD = CPPO()
