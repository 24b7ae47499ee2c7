"""SimPO (arXiv:2405.14734): a margin between average log-probs per token, without a reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.method import Group, MethodParameters
from perceptune.core.methods.pair import ReferenceFreePairMethod, average_logps

if TYPE_CHECKING:
    from torch import Tensor


class SimPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 2.0
    """Scale of the implicit reward, which is the average log-prob per token."""
    gamma_beta_ratio: Annotated[float, Field(ge=0)] = 0.5
    """Target margin gamma between the implicit rewards, divided by beta."""


class SimPO(ReferenceFreePairMethod):
    name = "simpo"
    Parameters = SimPOParameters

    def loss(self, group: Group, parameters: SimPOParameters) -> Tensor:
        """softplus(-(beta (l_best - l_worst) - gamma)), l = log pi(y) / |y| (eq. 6)."""
        from torch.nn.functional import softplus

        best, worst = average_logps(group)
        return softplus(-parameters.beta * (best - worst - parameters.gamma_beta_ratio))


METHOD = SimPO()
