"""Robust DPO (arXiv:2403.00409): an unbiased estimate of DPO's loss if some pairs are in the wrong order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perceptune.core.methods.cdpo import SmoothedDPOParameters
from perceptune.core.methods.method import Group
from perceptune.core.methods.pair import PairMethod, log_ratio_margin

if TYPE_CHECKING:
    from torch import Tensor


class RobustDPO(PairMethod):
    name = "robust_dpo"
    Parameters = SmoothedDPOParameters

    def loss(self, group: Group, parameters: SmoothedDPOParameters) -> Tensor:
        """((1 - epsilon) softplus(-z) - epsilon softplus(z)) / (1 - 2 epsilon), z = beta (s_best -
        s_worst).

        For epsilon > 0, it has no lower bound: its slope tends to -epsilon / (1 - 2 epsilon).
        """
        from torch.nn.functional import softplus

        epsilon, margin = parameters.label_smoothing, parameters.beta * log_ratio_margin(group)
        return ((1 - epsilon) * softplus(-margin) - epsilon * softplus(margin)) / (1 - 2 * epsilon)


METHOD = RobustDPO()
