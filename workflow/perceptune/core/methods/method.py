"""What a training method declares, and what its loss is given."""

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
"""Type of a parameter that names a view of the config: unknown names fail before anything runs."""


class MethodParameters(BaseModel):
    """A method's own settings: closed, frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def naming_views(parameters: type[BaseModel]) -> list[str]:
    """Those of a method's parameters that name a view."""
    return [name for name, field in parameters.model_fields.items() if _NAMES_A_VIEW in field.metadata]


@dataclass(frozen=True)
class Group:
    """The n responses of one group as a loss sees them; of ranked lists the best first.

    `logps` (n,) float32 with gradient: sums of the policy's token log-probabilities under the training view. `reference`
    (n,) float32: the same under the reference, None for a method without that term. `lengths` (n,): tokens. `rewards` (n,):
    in [0, 1], 0 for pairs. `views`: the two under other views, by name. A log-probability that the method did not ask for is NaN.
    """

    logps: Tensor
    reference: Tensor | None
    lengths: Tensor
    rewards: Tensor
    views: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=dict)
    """The pairs that the filter kept."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Stored columns of the group, such as CLIP scores."""

    @property
    def scores(self) -> Tensor:
        """s_i = log pi(y_i) - log pi_ref(y_i), shape (n,)."""
        assert self.reference is not None
        return self.logps - self.reference


class Stored(NamedTuple):
    """Log-probabilities that a stage of their own computes, once."""

    term: Literal["reference", "old"]
    """Whose: the base model's, or those of the policy that gave the answers."""
    view: str
    """What it is shown."""


class Method(ABC):
    """What a training method learns from and needs. Declarations are read without torch; losses import it."""

    name: ClassVar[str]
    Parameters: ClassVar[type[MethodParameters]]
    groups: ClassVar[Literal["lists", "pairs", "rollouts"]]
    """What it learns from: ranked lists of samples, pairs with a kind, or the groups of a round."""

    @abstractmethod
    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """The stored log-probabilities that the loss needs, given the training view."""

    def views(self, parameters: Any, view: str) -> tuple[str, ...]:
        """Every view that the method sees, given the training view, which comes first.

        The only source: the config's checks, the jobs' inputs, lineage and the resume fingerprint
        ask it. By default the training view and those of the stored log-probabilities; a method
        that queries others must name them here. Names are those of the config; groups of pairs
        bring the views of `core.looks.PAIR_VIEWS` themselves.
        """
        return tuple(dict.fromkeys([view, *(stored.view for stored in self.stored(parameters, view))]))

    def wants_ground_truth(self, parameters: Any) -> bool:
        """Whether the true answer takes the place of the group."""
        return False


class GroupMethod(Method):
    """A loss over the summed log-probabilities of one group's responses, averaged over groups."""

    groups: ClassVar[Literal["lists", "pairs", "rollouts"]] = "lists"

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """By default the reference under the training view."""
        return (Stored("reference", view),)

    def responses(self, rewards: Sequence[float], parameters: Any) -> list[int]:
        """Places in the ranked list that the loss needs; all by default."""
        return list(range(len(rewards)))

    def looks(self, rewards: Sequence[float], pairs: Pairs, parameters: Any, view: str) -> list[Look]:
        """By default `responses` under the training view."""
        return [Look(view, tuple(self.responses(rewards, parameters)))]

    @abstractmethod
    def loss(self, group: Group, parameters: Any) -> Tensor:
        """The loss of one group, a scalar."""

    def metrics(self, group: Group, parameters: Any) -> dict[str, float]:
        """What to watch while training, always under the same names; NaN counts as absent.

        By default the log-probabilities of the best and the worst response, and how far the policy has separated them.
        """
        metrics = {"chosen_logps": group.logps[0].item()}
        if len(group.logps) > 1:
            metrics["rejected_logps"] = group.logps[-1].item()
            if group.reference is not None:
                margin = (group.scores[0] - group.scores[-1]).item()
                metrics |= {"margin": margin, "ranking_accuracy": float(margin > 0)}
        return metrics
