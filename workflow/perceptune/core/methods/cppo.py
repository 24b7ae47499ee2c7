"""CPPO (arXiv:2601.00501): contrast of preserving and removing views on perception tokens."""

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
"""Metrics in addition to GRPO's."""


class CPPOParameters(GRPOParameters):
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The probability ratio is clipped above 1 plus this."""
    contrast: Weight = 0.01
    """Weight of the contrastive perception loss: lambda."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the contrastive loss: tau."""
    tokens: Literal["perception", "random", "all"] = "perception"
    """Tokens with the contrastive loss: those whose entropy rises under `removing`, or all. As a
    control, `random` selects as many tokens per response as `perception`, at random."""
    share: Share = 0.5
    """Share of the tokens with rising entropy that is selected in each response."""
    rounding: Literal["floor", "ceil"] = "floor"
    """Rounding of the number of selected tokens; at least one is selected."""
    ties: bool = True
    """Also select tokens whose score equals the last selected one's."""
    score: Literal["normalised", "difference"] = "normalised"
    """Rank tokens by the entropy rise divided by the entropy under the removing view (the code), or
    by the rise itself."""
    gate: bool = True
    """Select tokens only in responses with a positive advantage."""
    divergence: Literal["k3", "k1", "full"] = "k3"
    """KL divergence: estimated on the sampled token (k3: the main code, k1: the asynchronous code),
    or exact over the vocabulary (full)."""
    preserving: ViewName = "preserving"
    """View of this config that preserves the information in the image."""
    removing: ViewName = "removing"
    """View of this config that removes it."""


class CPPO(GRPO):
    name = "cppo"
    Parameters: ClassVar[type[MethodParameters]] = CPPOParameters
    watched = (*GRPO.watched, *OWN)

    def live(self, parameters: Any) -> tuple[str, ...]:
        """Both views of the contrast, with gradient."""
        return (parameters.preserving, parameters.removing) if parameters.contrast else ()

    def wants_full_kl(self, parameters: Any) -> bool:
        return parameters.divergence == "full" and bool(parameters.contrast)

    def contrasted(self, tokens: Tokens, parameters: Any) -> tuple[Seen, Seen]:
        """The tokens under the two views of the contrast: (preserving, removing)."""
        return tokens.live[parameters.preserving], tokens.live[parameters.removing]

    def selects_by(self, parameters: Any) -> str | None:
        return parameters.removing if parameters.contrast else None

    def scores(self, tokens: Tokens, parameters: Any) -> Tensor:
        """The rise of each token's entropy under the removing view."""
        from perceptune.core.methods.policy_gradient import perception_scores

        entropy = tokens.live[parameters.removing].entropy
        assert entropy is not None
        return perception_scores(tokens.entropy, entropy, parameters.score)

    def select(self, tokens: Tokens, parameters: Any) -> Tensor | None:
        """Tokens whose entropy rises most in this step, in responses with a positive advantage."""
        from perceptune.core.methods.policy_gradient import as_many_random, perception_tokens

        if not parameters.contrast:
            return None
        scores = self.scores(tokens, parameters)
        chosen = perception_tokens(scores, tokens.owners, parameters.share, parameters.rounding, parameters.ties)
        if parameters.tokens == "all":
            chosen = chosen.new_ones(chosen.shape)
        elif parameters.tokens == "random":
            chosen = as_many_random(chosen, tokens.owners, tokens.old)
        gate = advantages_of(tokens, parameters)[tokens.owners] > 0
        return chosen & gate if parameters.gate else chosen

    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """GRPO's loss + contrast * mean over selected tokens of softplus((K+ - K-) / tau)."""
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
        """Divergence of `seen` from the training view, (T,); estimates are at most 10."""
        from perceptune.core.methods.policy_gradient import LARGEST_KL, kl_estimate

        if parameters.divergence == "full":
            assert seen.kl is not None
            return seen.kl
        estimate = kl_estimate(tokens.logps, seen.logps, parameters.divergence)
        return estimate.clamp(-LARGEST_KL, LARGEST_KL)  # k3 is clamped already

    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """GRPO's metrics, the share of selected tokens, and the margin between the views on them."""
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
