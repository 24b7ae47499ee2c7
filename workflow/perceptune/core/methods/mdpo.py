"""mDPO (arXiv:2406.11839): DPO, a preference between two images, and an anchor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.logprob_queries import Look, Pairs
from perceptune.core.methods.method import Group, MethodParameters, Stored, ViewName
from perceptune.core.methods.pair import PairMethod, log_ratio_margin

if TYPE_CHECKING:
    from torch import Tensor


class MDPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""
    corrupted: ViewName = "corrupted"
    """View of this config that hides most of the image. The paper uses a random crop of 0 to 20 %
    of the image, as the view type `random_crop` does."""
    delta: float = 0.0
    """Anchor: the implicit reward that the chosen response is trained to exceed."""
    conditional: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the conditional preference, image over corrupted image; 0 disables it."""
    anchor: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the anchored preference; 0 disables it."""


class MDPO(PairMethod):
    name = "mdpo"
    Parameters = MDPOParameters

    def stored(self, parameters: MDPOParameters, view: str) -> tuple[Stored, ...]:
        """Reference log-probs under the training view and, if `conditional`, the corrupted one."""
        views = (view, parameters.corrupted) if parameters.conditional else (view,)
        return tuple(Stored("reference", name) for name in views)

    def looks(self, rewards: Sequence[float], pairs: Pairs, parameters: MDPOParameters, view: str) -> list[Look]:
        """Both responses under the training view, and the best one also under the corrupted view."""
        looks = super().looks(rewards, pairs, parameters, view)
        return [*looks, Look(parameters.corrupted, (0,))] if parameters.conditional else looks

    def loss(self, group: Group, parameters: MDPOParameters) -> Tensor:
        """L_DPO + conditional L_CoPO + anchor L_AncPO (sec. 3).

        The log-ratios log pi - log pi_ref are s_w for the best response, s_l for the worst, and s_c
        for the best under the corrupted view. L_DPO = softplus(-beta (s_w - s_l)), L_CoPO =
        softplus(-beta (s_w - s_c)), L_AncPO = softplus(-(beta s_w - delta)).
        """
        from torch.nn.functional import softplus

        scores, beta = group.scores, parameters.beta
        loss = softplus(-beta * log_ratio_margin(group))
        if parameters.conditional:
            conditional = softplus(-beta * self._conditional_margin(group, parameters))
            loss = loss + parameters.conditional * conditional
        if parameters.anchor:
            loss = loss + parameters.anchor * softplus(-(beta * scores[0] - parameters.delta))
        return loss

    def metrics(self, group: Group, parameters: MDPOParameters) -> dict[str, float]:
        """DPO's metrics, `conditional_margin` (s_w - s_c) and `anchor_reward` (beta s_w)."""
        margin = self._conditional_margin(group, parameters).item() if parameters.conditional else math.nan
        anchored = (parameters.beta * group.scores[0]).item()
        return {**super().metrics(group, parameters), "conditional_margin": margin, "anchor_reward": anchored}

    def _conditional_margin(self, group: Group, parameters: MDPOParameters) -> Tensor:
        """s_w - s_c, a scalar."""
        policy, reference = group.views[parameters.corrupted]
        return group.scores[0] - (policy[0] - reference[0])


METHOD = MDPO()
