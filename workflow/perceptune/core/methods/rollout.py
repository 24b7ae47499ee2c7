"""The interface of on-policy methods, which train on their own responses."""

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
    """Values of the same response tokens under another view, (T,) each."""

    logps: Tensor
    entropy: Tensor | None = None
    """Entropy over the vocabulary, in nats; no gradient."""
    kl: Tensor | None = None
    """KL(policy, training view || policy, this view) over the vocabulary, if requested."""


@dataclass(frozen=True)
class Tokens:
    """The concatenated response tokens of whole rollout groups: (T,) per token, (R,) per response.

    float32 unless noted.
    """

    logps: Tensor
    """Log-probs of the policy under training, with gradient, (T,)."""
    old: Tensor
    """Log-probs of the behaviour policy, from the trainer's own forward pass, (T,)."""
    sampled: Tensor
    """Log-probs of the behaviour policy, from the sampling engine, (T,)."""
    reference: Tensor | None
    """Log-probs of the base model, (T,); None for a method without a reference."""
    entropy: Tensor
    """The policy's entropy over the vocabulary, in nats, no gradient, (T,)."""
    old_entropy: Tensor
    """The behaviour policy's entropy over the vocabulary, in nats, (T,)."""
    owners: Tensor
    """Index of each token's response, (T,)."""
    groups: Tensor
    """Index of each response's group, (R,)."""
    rewards: Tensor
    """Reward of each response, (R,) float64."""
    truncated: Tensor
    """Whether a response reached the maximum length, (R,) bool."""
    weights: Tensor
    """Weight of each token in the method's aggregate over the optimiser step, (T,)."""
    share: float
    """1 / number of tokens of the optimiser step."""
    stored: Mapping[str, Seen] = field(default_factory=dict)
    """View to values of the behaviour policy, without gradient."""
    live: Mapping[str, Seen] = field(default_factory=dict)
    """View to values of the policy under training, with gradient."""
    selected: Tensor | None = None
    """Result of `select`, (T,) bool."""
    selected_share: float = 0.0
    """1 / number of selected tokens of the optimiser step."""

    @property
    def lengths(self) -> Tensor:
        """Number of tokens per response, (R,)."""
        return self.owners.bincount(minlength=len(self.rewards))


class RolloutMethod(Method):
    """A method with a loss over the tokens of rollout groups.

    The loss of a subset of groups is its part of the optimiser step's loss: the parts add up.
    """

    groups = "rollouts"
    watched: ClassVar[tuple[str, ...]]
    """Keys of `metrics`."""

    def live(self, parameters: Any) -> tuple[str, ...]:
        """Other views under which each step evaluates the policy under training."""
        return ()

    def wants_full_kl(self, parameters: Any) -> bool:
        """Whether `Seen.kl` of the live views is needed."""
        return False

    def select(self, tokens: Tokens, parameters: Any) -> Tensor | None:
        """Mask (T,) bool of the tokens of a selective loss, by the policy now; no gradient."""
        return None

    def selects_by(self, parameters: Any) -> str | None:
        """The view whose entropies, with those of the training view, decide what `select` selects; None
        for methods that select nothing.
        """
        return None

    def scores(self, tokens: Tokens, parameters: Any) -> Tensor | None:
        """What `select` ranks tokens by, (T,); no gradient."""
        return None

    def views(self, parameters: Any, view: str) -> tuple[str, ...]:
        """The training view, those of the stored log-probs, and the live ones."""
        return tuple(dict.fromkeys([*super().views(parameters, view), *self.live(parameters)]))

    @abstractmethod
    def aggregation(self, parameters: Any) -> tuple[Aggregation, int]:
        """Aggregation of token losses, and the chunk size: see `policy_gradient.token_weights`."""

    @abstractmethod
    def loss(self, tokens: Tokens, parameters: Any) -> Tensor:
        """This part of the step's loss, a scalar."""

    @abstractmethod
    def metrics(self, tokens: Tokens, parameters: Any) -> dict[str, float]:
        """Metrics of one process's tokens in an optimiser step; NaN counts as missing."""
