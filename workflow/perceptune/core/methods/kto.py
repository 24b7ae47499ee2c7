"""KTO (arXiv:2402.01306): desirable and undesirable responses, relative to a reference point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from perceptune.core.methods.method import Group, GroupMethod, MethodParameters

if TYPE_CHECKING:
    from torch import Tensor


class KTOParameters(MethodParameters):
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the implicit reward."""
    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """lambda_D, the weight of desirable answers."""
    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """lambda_U, the weight of undesirable answers."""
    threshold: float | None = None
    """Answers with at least this reward are desirable, all others undesirable; null: only the best
    answer of a list is desirable, only the worst undesirable, and the others have no label."""
    reference_point: Literal["answers", "zero"] = "answers"
    """z0: estimated from the answers of the same list, or 0."""


class KTO(GroupMethod):
    name = "kto"
    Parameters = KTOParameters

    def responses(self, rewards: Sequence[float], parameters: KTOParameters) -> list[int]:
        """All responses; without a threshold and with a reference point of 0 the first and the last."""
        if parameters.threshold is None and parameters.reference_point == "zero":
            return [0, len(rewards) - 1]
        return super().responses(rewards, parameters)

    def loss(self, group: Group, parameters: KTOParameters) -> Tensor:
        """The mean of lambda_y - v(x, y) over the labelled answers.

        v = lambda_D sigmoid(beta (s - z0)) of a desirable answer, lambda_U sigmoid(beta (z0 - s)) of
        an undesirable one. z0 carries no gradient; see `reference_point`.
        """
        import torch

        scores = group.scores
        if parameters.threshold is None:
            scores, desirable = scores[[0, -1]], torch.tensor([True, False], device=scores.device)
        else:
            desirable = group.rewards >= parameters.threshold
        distance = parameters.beta * (scores - reference_point(group, parameters))
        # lambda - lambda sigmoid(d) = lambda sigmoid(-d)
        good = parameters.desirable_weight * torch.sigmoid(-distance)
        bad = parameters.undesirable_weight * torch.sigmoid(distance)
        return torch.where(desirable, good, bad).mean()

    def metrics(self, group: Group, parameters: KTOParameters) -> dict[str, float]:
        """The default metrics and `reference_point`, z0."""
        return {**super().metrics(group, parameters), "reference_point": reference_point(group, parameters).item()}


def reference_point(group: Group, parameters: KTOParameters) -> Tensor:
    """z0, a scalar without gradient: an estimate of KL(pi || pi_ref) for this prompt, at least 0.

    The mean of s over the answers of the list, weighted by the policy's probabilities of these
    answers, which are normalised to 1. The paper and TRL average s over answers to other prompts of
    the same micro-batch instead.
    """
    import torch

    scores = group.scores.detach()
    if parameters.reference_point == "zero":
        return torch.zeros_like(scores[0])
    return (torch.softmax(group.logps.detach(), dim=0) * scores).sum().clamp(min=0)


METHOD = KTO()
