"""What a method returns as its loss, which may be anything if it is a user's plug-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perceptune.contracts.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

NOT_QUERIED = (
    "the log-probs that the method asked for are finite, so look at its formula;"
    " those of answers that `responses` or `looks` leaves out are NaN"
)
"""Hint for a loss that is not finite although the policy's log-probs are."""


def scalar(loss: Any, method: str, logps: Tensor) -> Tensor:
    """The loss of the method of this name, which may be NaN or infinite.

    `logps` are log-probs of the policy that it was given. Raises `UserError` if the loss is not a tensor
    of shape (), or has no gradient although they do.
    """
    from torch import Tensor

    if not isinstance(loss, Tensor):
        raise UserError(f"method `{method}`: the loss is a `{type(loss).__name__}`, expected a tensor")
    if loss.shape != ():
        raise UserError(f"method `{method}`: the loss has shape {tuple(loss.shape)}, expected a scalar, shape ()")
    if logps.requires_grad and not loss.requires_grad:
        raise UserError(
            f"method `{method}`: the loss has no gradient, expected a function of the policy's log-probs",
            "`detach`, `item`, `float` and NumPy lose the gradient",
        )
    return loss
