"""Conservative DPO (Mitchell, 2023): DPO on a pair whose order is wrong with a given probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.dpo import DPOParameters
from perceptune.core.methods.method import Group
from perceptune.core.methods.pair import PairMethod, log_ratio_margin

if TYPE_CHECKING:
    from torch import Tensor


class SmoothedDPOParameters(DPOParameters):
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """epsilon, the assumed probability that the pair is in the wrong order; 0 is DPO."""


class ConservativeDPO(PairMethod):
    name = "cdpo"
    Parameters = SmoothedDPOParameters

    def loss(self, group: Group, parameters: SmoothedDPOParameters) -> Tensor:
        """(1 - epsilon) softplus(-z) + epsilon softplus(z), z = beta (s_best - s_worst).

        Smallest at sigmoid(z) = 1 - epsilon.
        """
        from torch.nn.functional import softplus

        epsilon, margin = parameters.label_smoothing, parameters.beta * log_ratio_margin(group)
        return (1 - epsilon) * softplus(-margin) + epsilon * softplus(margin)


METHOD = ConservativeDPO()
