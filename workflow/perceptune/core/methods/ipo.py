"""IPO (arXiv:2310.12036): the squared distance of the log-ratio margin from 1 / (2 tau)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from perceptune.core.methods.method import Group, MethodParameters
from perceptune.core.methods.pair import PairMethod

if TYPE_CHECKING:
    from torch import Tensor


class IPOParameters(MethodParameters):
    tau: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the regularisation: the margin is trained towards 1 / (2 tau). TRL calls it beta."""
    per_token: bool = True
    """Average the log-ratios over the tokens of each answer, as TRL does; false: sum them, as the
    paper's equation does."""


class IPO(PairMethod):
    name = "ipo"
    Parameters = IPOParameters

    def loss(self, group: Group, parameters: IPOParameters) -> Tensor:
        """(h - 1 / (2 tau))^2, h = s_best - s_worst (eq. 17); s is divided by the number of tokens
        if `per_token`.
        """
        scores = group.scores / group.lengths if parameters.per_token else group.scores
        return (scores[0] - scores[-1] - 1 / (2 * parameters.tau)) ** 2


METHOD = IPO()
