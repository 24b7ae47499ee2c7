"""PerPO (arXiv:2502.04371): all pairs of the list, weighted by their reward margins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.method import Group, GroupMethod, MethodParameters

if TYPE_CHECKING:
    from torch import Tensor


class PerPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""
    gamma: Annotated[float, Field(ge=0)] = 0.5
    """Exponent of the reward margin; 0 gives all pairs equal weight."""


class PerPO(GroupMethod):
    name = "perpo"
    Parameters = PerPOParameters

    def loss(self, group: Group, parameters: PerPOParameters) -> Tensor:
        """sum_ij m_ij softplus(-beta (s_i - s_j)) / sum_ij m_ij over R_i > R_j, m_ij = (R_i -
        R_j)^gamma.

        Tied pairs never count; a list whose rewards are all equal has loss and gradient 0.
        """
        return margin_weighted(group, parameters.beta, parameters.gamma)


def margin_weighted(group: Group, beta: float, gamma: float) -> Tensor:
    """PerPO's loss of one group, a scalar; with gamma 0, LiPO's with uniform weights."""
    import torch
    from torch.nn.functional import softplus

    margins = group.rewards[:, None] - group.rewards[None, :]
    # relative to the largest, whose weight is then 1: a high power of small margins would vanish
    powers = (margins / margins.max()).clamp(min=0).pow(gamma)
    weights = torch.where(margins > 0, powers, 0)
    scores = group.scores
    weights = (weights / weights.sum().clamp(min=1)).to(scores.dtype)  # the sum is 0 without a pair
    return (weights * softplus(-beta * (scores[:, None] - scores[None, :]))).sum()


METHOD = PerPO()
