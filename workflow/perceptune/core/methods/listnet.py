"""ListNet (Cao et al., ICML 2007): cross-entropy of the top-one distributions of rewards and log-ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.dpo import DPOParameters
from perceptune.core.methods.method import Group, GroupMethod

if TYPE_CHECKING:
    from torch import Tensor


class ListNetParameters(DPOParameters):
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Unit of the rewards in their softmax; smaller values move the target towards the best answer."""


class ListNet(GroupMethod):
    name = "listnet"
    Parameters = ListNetParameters

    def loss(self, group: Group, parameters: ListNetParameters) -> Tensor:
        """-sum_i p_i log q_i, p = softmax(R / temperature), q = softmax(beta s).

        Its minimum is the entropy of p, at beta s = R / temperature up to a constant.
        """
        import torch

        target = torch.softmax(group.rewards / parameters.temperature, dim=0)
        log_found = torch.log_softmax(parameters.beta * group.scores, dim=0)
        return -(target.to(log_found.dtype) * log_found).sum()


METHOD = ListNet()
