"""Supervised fine-tuning on one response: the ground truth, or the best of N responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perceptune.core.methods.method import Group, GroupMethod, MethodParameters, Stored

if TYPE_CHECKING:
    from torch import Tensor


class SFTParameters(MethodParameters):
    source: Literal["ground_truth", "best_of_n"] = "ground_truth"
    """Training target: the ground truth, or the best of the N responses."""


class SFT(GroupMethod):
    name = "sft"
    Parameters = SFTParameters

    def stored(self, parameters: SFTParameters, view: str) -> tuple[Stored, ...]:
        """Returns an empty tuple, because the method uses no reference model."""
        return ()

    def responses(self, rewards: Sequence[float], parameters: SFTParameters) -> list[int]:
        """The best response of the list."""
        return [0]

    def wants_ground_truth(self, parameters: SFTParameters) -> bool:
        """Whether `source` is `ground_truth`."""
        return parameters.source == "ground_truth"

    def loss(self, group: Group, parameters: SFTParameters) -> Tensor:
        """Negative log-likelihood, averaged over the response's tokens including end of sequence."""
        return -group.logps[0] / group.lengths[0]


METHOD = SFT()
