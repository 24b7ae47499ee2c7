"""The interface of training methods: what a method declares, and the input of its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from perceptune.core.methods.logprob_queries import Look, Pairs

if TYPE_CHECKING:
    from torch import Tensor


_NAMES_A_VIEW = object()
ViewName = Annotated[str, _NAMES_A_VIEW]
"""Type of a parameter that names a view: unknown names are rejected before any job runs."""


class MethodParameters(BaseModel):
    """Base of a method's parameters: frozen; extra keys, infinite numbers and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def naming_views(parameters: type[BaseModel]) -> list[str]:
    """The names of a method's parameters that name a view."""
    return [name for name, field in parameters.model_fields.items() if _NAMES_A_VIEW in field.metadata]


@dataclass(frozen=True)
class Group:
    """The n responses of one group, the input of a loss; ranked lists have the best first.

    `logps` (n,) float32, with gradient: the policy's log-probs under the training view, summed over
    tokens. `reference` (n,) float32: those of the reference, None for a method without it.
    `lengths` (n,): number of tokens. `rewards` (n,) float64: 0 for pairs. `views`: (policy,
    reference) under other views, by name. Log-probs that the method did not query are NaN.
    """

    logps: Tensor
    reference: Tensor | None
    lengths: Tensor
    rewards: Tensor
    views: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=dict)
    """Pairs that passed the filter."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Further stored values of the group, such as CLIP scores."""

    @property
    def scores(self) -> Tensor:
        """s_i = log pi(y_i) - log pi_ref(y_i), shape (n,)."""
        assert self.reference is not None
        return self.logps - self.reference


class Stored(NamedTuple):
    """Stored log-probs, which a separate stage computes once."""

    term: Literal["reference", "old"]
    """The model: `reference` is the base model, `old` the behaviour policy."""
    view: str
    """The view under which they are computed."""


class Method(ABC):
    """A training method. Its declaration can be read without torch, which only losses import."""

    name: ClassVar[str]
    Parameters: ClassVar[type[MethodParameters]]
    groups: ClassVar[Literal["lists", "pairs", "rollouts"]]
    """Training data: ranked lists of responses, pairs, or the rollout groups of a round."""

    @abstractmethod
    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """The stored log-probs that the loss needs, given the training view."""

    def views(self, parameters: Any, view: str) -> tuple[str, ...]:
        """All views that the method uses, given the training view, which comes first.

        The only source for config checks, job inputs, lineage and the resume fingerprint. By
        default the training view and those of the stored log-probs; a method that queries other
        views must override this. Names are those of the config, or of `logprob_queries.PAIR_VIEWS`,
        which groups of pairs define themselves.
        """
        return tuple(dict.fromkeys([view, *(stored.view for stored in self.stored(parameters, view))]))

    def wants_ground_truth(self, parameters: Any) -> bool:
        """Whether the method trains on the ground truth instead of the group."""
        return False


class GroupMethod(Method):
    """A method whose loss is a function of one group's summed log-probs, averaged over groups."""

    groups: ClassVar[Literal["lists", "pairs", "rollouts"]] = "lists"

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """By default, the reference log-probs under the training view."""
        return (Stored("reference", view),)

    def responses(self, rewards: Sequence[float], parameters: Any) -> list[int]:
        """Indices of the ranked list that the loss needs; all by default."""
        return list(range(len(rewards)))

    def looks(self, rewards: Sequence[float], pairs: Pairs, parameters: Any, view: str) -> list[Look]:
        """The log-prob queries of one group; by default `responses` under the training view."""
        return [Look(view, tuple(self.responses(rewards, parameters)))]

    @abstractmethod
    def loss(self, group: Group, parameters: Any) -> Tensor:
        """The loss of one group, a scalar."""

    def metrics(self, group: Group, parameters: Any) -> dict[str, float]:
        """Training metrics, always under the same names; NaN counts as missing.

        By default the log-probs of the best and the worst response, their margin and ranking
        accuracy.
        """
        metrics = {"chosen_logps": group.logps[0].item()}
        if len(group.logps) > 1:
            metrics["rejected_logps"] = group.logps[-1].item()
            if group.reference is not None:
                margin = (group.scores[0] - group.scores[-1]).item()
                metrics |= {"margin": margin, "ranking_accuracy": float(margin > 0)}
        return metrics
