"""DPO (arXiv:2305.18290, eq. 7) on the best and the worst response, as PerPO's baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.method import Group, GroupMethod, MethodParameters

if TYPE_CHECKING:
    from torch import Tensor


class DPOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""


class DPO(GroupMethod):
    name = "dpo"
    Parameters = DPOParameters

    def responses(self, rewards: Sequence[float], parameters: DPOParameters) -> list[int]:
        """The first and the last response of the ranked list."""
        return [0, len(rewards) - 1]

    def loss(self, group: Group, parameters: DPOParameters) -> Tensor:
        """-log sigmoid(beta (s_best - s_worst))."""
        from torch.nn.functional import softplus

        scores = group.scores
        return softplus(-parameters.beta * (scores[0] - scores[-1]))


METHOD = DPO()
