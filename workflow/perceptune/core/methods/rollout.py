"""What a method that learns from its own samples declares, and what its loss is given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from perceptune.core.methods.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from perceptune.core.methods.policy_gradient import Aggregation


@dataclass(frozen=True)
class Seen:
    """The same response tokens under another view, (T,) each."""

    logps: Tensor
    entropy: Tensor | None = None
    """Of the whole distribution, in nats; no gradient."""
    kl: Tensor | None = None
    """KL(policy under the training view || policy under this view) over the whole vocabulary, where a method asks for it."""


@dataclass(frozen=True)
class Tokens:
    """The response tokens of whole rollout groups, one response after the other: (T,) float32, or (R,) per response."""

    logps: Tensor
    """Of the policy under training, with gradient, (T,)."""
    old: Tensor
    """Of the policy that answered, from the trainer's own forward pass, (T,)."""
    sampled: Tensor
    """Of the policy that answered, from the sampling engine, (T,)."""
    reference: Tensor | None
    """Of the base model, (T,); None for a method without that term."""
    entropy: Tensor
    """Of the policy's whole distribution, in nats, no gradient, (T,)."""
    old_entropy: Tensor
    """Of the distribution of the policy that answered, (T,)."""
    owners: Tensor
    """Number of each token's response, (T,)."""
    groups: Tensor
    """Number of each response's group, (R,)."""
    rewards: Tensor
    """(R,) float64."""
    truncated: Tensor
    """Whether a response came to its longest length, (R,) bool."""
    weights: Tensor
    """What each token counts in the mean that the method asks for: over the optimiser step they make its mean, (T,)."""
    share: float
    """1 / tokens of the optimiser step."""
    stored: Mapping[str, Seen] = field(default_factory=dict)
    """View to the policy that answered, constant."""
    live: Mapping[str, Seen] = field(default_factory=dict)
    """View to the policy under training, with gradient."""
    selected: Tensor | None = None
    """What `select` has chosen, (T,) bool."""
    selected_share: float = 0.0
    """1 / tokens that were selected in the optimiser step."""

    @property
    def lengths(self) -> Tensor:
        """Tokens per response, (R,)."""
        return self.owners.bincount(minlength=len(self.rewards))


class RolloutMethod(Method):
    """A loss over the tokens of rollout groups. What it gives is a part of the optimiser step's loss: the parts add up."""

    groups = "rollouts"
    watched: ClassVar[tuple[str, ...]]
    """Names of `metrics`."""

    def live(self, parameters: Any) -> tuple[str, ...]:
        """Views that the policy under training is asked about in every step, besides the training view."""
        return ()

    def wants_full_kl(self, parameters: Any) -> bool:
        """Whether `Seen.kl` of the live views is needed."""
        return False

    def select(self, tokens: Tokens, parameters: Any) -> Tensor | None:
        """The tokens that a term is about, (T,) bool, by the policy of this very step; no gradient."""
        return None

    def views(self, parameters: Any, view: str) -> tuple[str, ...]:
        """Those of the stored log-probabilities and the live ones."""
        return tuple(dict.fromkeys([*super().views(parameters, view), *self.live(parameters)]))

    @abstractmethod
    def aggregation(self, parameters: Any) -> tuple[Aggregation, int]:
        """How token losses become a mean, and the size of a chunk: see `core.policy_gradient.token_weights`."""

    @abstractmethod
    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """This part of the step's loss, a scalar."""

    @abstractmethod
    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """What to watch, from the tokens of one process in an optimiser step; NaN counts as absent."""
