"""DPO (arXiv:2305.18290, eq. 7) on the best and the worst response, as PerPO's baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.method import Group, MethodParameters
from perceptune.core.methods.pair import PairMethod, log_ratio_margin

if TYPE_CHECKING:
    from torch import Tensor


class DPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""


class DPO(PairMethod):
    name = "dpo"
    Parameters = DPOParameters

    def loss(self, group: Group, parameters: DPOParameters) -> Tensor:
        """-log sigmoid(beta (s_best - s_worst))."""
        from torch.nn.functional import softplus

        return softplus(-parameters.beta * log_ratio_margin(group))


METHOD = DPO()
