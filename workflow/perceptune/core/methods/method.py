"""What a training method declares, and what its loss is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor


class MethodParameters(BaseModel):
    """A method's own settings: closed, frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Group:
    """The responses of one list that the method asked for, best first: n responses.

    `logps` (n,) float32 with gradient: sums of the policy's token log-probabilities. `reference` (n,) float32: the same
    under the reference, None for a method without that term. `lengths` (n,): tokens. `rewards` (n,): in [0, 1].
    """

    logps: Tensor
    reference: Tensor | None
    lengths: Tensor
    rewards: Tensor

    @property
    def scores(self) -> Tensor:
        """s_i = log pi(y_i) - log pi_ref(y_i), shape (n,)."""
        assert self.reference is not None
        return self.logps - self.reference


class Method(ABC):
    """A loss over stored columns. Declarations are read without torch; `loss` imports it."""

    name: ClassVar[str]
    Parameters: ClassVar[type[MethodParameters]]
    terms: ClassVar[tuple[str, ...]] = ("reference",)
    """Stored log-probabilities that the loss needs."""

    def responses(self, rewards: Sequence[float], parameters: Any) -> list[int]:
        """Positions in the ranked list that the loss needs; all by default."""
        return list(range(len(rewards)))

    def wants_ground_truth(self, parameters: Any) -> bool:
        """Whether the true answer takes the place of the list."""
        return False

    @abstractmethod
    def loss(self, group: Group, parameters: Any) -> Tensor:
        """The loss of one list, a scalar."""
