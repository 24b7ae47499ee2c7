"""What methods on a pair share: the best and the worst response of a ranked list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.core.methods.method import Group, GroupMethod, Stored

if TYPE_CHECKING:
    from torch import Tensor


class PairMethod(GroupMethod):
    """A method whose loss is a function of the best and the worst response of the list."""

    def responses(self, rewards: Sequence[float], parameters: Any) -> list[int]:
        """The first and the last response of the ranked list."""
        return [0, len(rewards) - 1]


class ReferenceFreePairMethod(PairMethod):
    """A method on a pair that uses the average log-prob per token and no reference model."""

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """Returns an empty tuple, because the method uses no reference model."""
        return ()

    def metrics(self, group: Group, parameters: Any) -> dict[str, float]:
        """Log-probs of both responses, and `average_margin`, the difference of their averages."""
        best, worst = average_logps(group)
        return {
            "chosen_logps": group.logps[0].item(),
            "rejected_logps": group.logps[-1].item(),
            "average_margin": (best - worst).item(),
        }


def log_ratio_margin(group: Group) -> Tensor:
    """s_best - s_worst, the difference of the log-ratios of policy and reference, a scalar."""
    return group.scores[0] - group.scores[-1]


def average_logps(group: Group) -> tuple[Tensor, Tensor]:
    """The log-prob per token of the best and of the worst response, two scalars."""
    averages = group.logps / group.lengths
    return averages[0], averages[-1]
