"""Supervised fine-tuning on one answer: the ground truth, or the best of the N samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perceptune.core.methods.method import Group, Method
from perceptune.core.methods.method import Parameters as Base

if TYPE_CHECKING:
    from torch import Tensor


class Parameters(Base):
    source: Literal["ground_truth", "best_of_n"] = "ground_truth"
    """The answer to learn."""


class SFT(Method):
    name = "sft"
    Parameters = Parameters
    terms = ()

    def responses(self, rewards: Sequence[float], parameters: Parameters) -> list[int]:
        """The best of the list."""
        return [0]

    def wants_ground_truth(self, parameters: Parameters) -> bool:
        """With `source: ground_truth` the true answer takes the place of the list."""
        return parameters.source == "ground_truth"

    def loss(self, group: Group, parameters: Parameters) -> Tensor:
        """Negative log-likelihood, averaged over the answer's tokens, end of sequence included."""
        return -(group.logps / group.lengths).mean()
