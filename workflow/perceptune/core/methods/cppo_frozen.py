"""An approximation of CPPO: views and selection are computed once a round, by the policy that answered (dossier d.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from perceptune.core.methods.cppo import CPPO, CPPOParameters
from perceptune.core.methods.method import Stored
from perceptune.core.methods.rollout import Seen, Tokens

if TYPE_CHECKING:
    from torch import Tensor


class FrozenCPPOParameters(CPPOParameters):
    divergence: Literal["k3", "k1"] = "k3"
    """Between views: an estimate from the sampled token."""


class FrozenCPPO(CPPO):
    name = "cppo_frozen"
    Parameters = FrozenCPPOParameters

    def live(self, parameters: Any) -> tuple[str, ...]:
        """None."""
        return ()

    def stored(self, parameters: Any, view: str) -> tuple[Stored, ...]:
        """GRPO's, and the policy that answered under both views."""
        views = (parameters.preserving, parameters.removing) if parameters.contrast else ()
        return (*super().stored(parameters, view), *(Stored("old", name) for name in views))

    def select(self, tokens: Tokens, parameters: Any) -> Tensor | None:
        """The same tokens in every step of the round."""
        return super().select(replace(tokens, entropy=tokens.old_entropy), parameters)

    def views(self, tokens: Tokens, parameters: Any) -> tuple[Seen, Seen]:
        """As they were when the round began."""
        return tokens.stored[parameters.preserving], tokens.stored[parameters.removing]
