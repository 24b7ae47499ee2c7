"""LiPO: uniform pairs (PerPO's baseline) or the published lambda weights (arXiv:2402.01878)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from perceptune.core.methods.method import Group, GroupMethod, MethodParameters
from perceptune.core.methods.perpo import margin_weighted

if TYPE_CHECKING:
    from torch import Tensor


class LiPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""
    weighting: Literal["uniform", "lambda"] = "uniform"
    """Equal weights for all pairs, or LiPO-lambda's weights."""


class LiPO(GroupMethod):
    name = "lipo"
    Parameters = LiPOParameters

    def loss(self, group: Group, parameters: LiPOParameters) -> Tensor:
        """Uniform: the mean over pairs with R_i > R_j of softplus(-beta (s_i - s_j)). Lambda: see
        `lambda_weighted`.
        """
        if parameters.weighting == "uniform":
            return margin_weighted(group, parameters.beta, 0.0)
        return lambda_weighted(group, parameters.beta)


def lambda_weighted(group: Group, beta: float) -> Tensor:
    """sum over R_i > R_j of |G_i - G_j| |1/D(t_i) - 1/D(t_j)| softplus(-(u_i - u_j)), u = beta s.

    G = 2^R - 1, D(t) = ln(1 + t) (natural logarithm), t = 1-based rank by u, descending. The
    weights carry no gradient.
    """
    import torch
    from torch.nn.functional import softplus

    utilities = beta * group.scores
    order = torch.argsort(utilities.detach(), descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(1, len(order) + 1, device=order.device)
    discounts = 1 / torch.log1p(ranks.to(utilities.dtype))
    gains = torch.exp2(group.rewards) - 1
    weights = (gains[:, None] - gains[None, :]).abs() * (discounts[:, None] - discounts[None, :]).abs()
    better = group.rewards[:, None] > group.rewards[None, :]
    return (weights.to(utilities.dtype) * better * softplus(-(utilities[:, None] - utilities[None, :]))).sum()


METHOD = LiPO()
