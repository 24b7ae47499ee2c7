"""Supervised fine-tuning on one answer: the ground truth, or the best of the N samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perceptune.core.methods.method import Group, GroupMethod, MethodParameters, Stored

if TYPE_CHECKING:
    from torch import Tensor


class SFTParameters(MethodParameters):
    source: Literal["ground_truth", "best_of_n"] = "ground_truth"
    """The answer to learn."""


class SFT(GroupMethod):
    name = "sft"
    Parameters = SFTParameters

    def stored(self, parameters: SFTParameters, view: str) -> tuple[Stored, ...]:
        """Nothing: there is no reference."""
        return ()

    def responses(self, rewards: Sequence[float], parameters: SFTParameters) -> list[int]:
        """The best of the list."""
        return [0]

    def wants_ground_truth(self, parameters: SFTParameters) -> bool:
        """With `source: ground_truth` the true answer takes the place of the list."""
        return parameters.source == "ground_truth"

    def loss(self, group: Group, parameters: SFTParameters) -> Tensor:
        """Negative log-likelihood, averaged over the answer's tokens, end of sequence included."""
        return -group.logps[0] / group.lengths[0]


METHOD = SFT()
