"""ORPO (arXiv:2403.07691): SFT on the best response plus an odds ratio, without a reference model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.method import Group, MethodParameters
from perceptune.core.methods.pair import ReferenceFreePairMethod, average_logps

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = -1e-7
"""Upper bound of an average log-prob: the odds of a probability of 1 are infinite."""


class ORPOParameters(MethodParameters):
    weight: Annotated[float, Field(ge=0)] = 0.1
    """lambda, the weight of the odds ratio; 0 is SFT on the best response. TRL calls it beta."""


class ORPO(ReferenceFreePairMethod):
    name = "orpo"
    Parameters = ORPOParameters

    def loss(self, group: Group, parameters: ORPOParameters) -> Tensor:
        """-l_best + lambda softplus(-(log odds_best - log odds_worst)) (eq. 6 and 7).

        l = log pi(y) / |y|, odds = exp(l) / (1 - exp(l)).
        """
        from torch.nn.functional import softplus

        best, worst = average_logps(group)
        return -best + parameters.weight * softplus(log_odds(worst) - log_odds(best))


def log_odds(average: Tensor) -> Tensor:
    """l - log(1 - exp(l)) of an average log-prob l, a scalar."""
    import torch

    bounded = average.clamp(max=LARGEST)
    # two forms of log(1 - exp(l)), each without cancellation on its side of -ln 2
    likely = bounded > -math.log(2)
    near_zero = torch.log(-torch.expm1(torch.where(likely, bounded, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(likely, -1.0, bounded)))
    return bounded - torch.where(likely, near_zero, far)


METHOD = ORPO()
