"""Plackett-Luce DPO (arXiv:2305.18290, appendix A.3; ListMLE): the likelihood of the whole ranking."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perceptune.core.methods.dpo import DPOParameters
from perceptune.core.methods.method import Group, GroupMethod

if TYPE_CHECKING:
    from torch import Tensor


class PlackettLuce(GroupMethod):
    name = "plackett_luce"
    Parameters = DPOParameters

    def loss(self, group: Group, parameters: DPOParameters) -> Tensor:
        """-sum_i log(exp(u_i) / (exp(u_i) + sum over R_j < R_i of exp(u_j))), u = beta s.

        Without ties, that is minus the log-likelihood of the ranking. Tied answers are not compared;
        a list whose rewards are all equal has loss and gradient 0.
        """
        import torch

        utilities, rewards = parameters.beta * group.scores, group.rewards
        worse = rewards[:, None] > rewards[None, :]
        among = worse | torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)
        differences = utilities[None, :] - utilities[:, None]
        return torch.logsumexp(differences.masked_fill(~among, -math.inf), dim=1).sum()


METHOD = PlackettLuce()
