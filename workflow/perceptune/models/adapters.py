"""The layers that an adapter may modify: linear layers of the language model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from perceptune.contracts.errors import SHOWN, UserError, joined_mistakes, near

KEY = "lora.target_modules"


def language_layers(model: nn.Module, names: Sequence[str]) -> str:
    """A regular expression that matches the layers with these names in the language model only.

    Names are such as `q_proj` or `self_attn.q_proj`. Layers of the vision tower and projector with
    the same names stay frozen. Raises `UserError` for a name that matches no linear layer of the
    language model.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    inside = [name for name in linear if "language_model" in name.split(".")]
    allowed = sorted({name.rpartition(".")[2] for name in inside})
    mistakes = []
    for name in names:
        if not _named(inside, name):
            elsewhere = _named([n for n, _ in model.named_modules() if n not in inside], name)
            found = ", ".join(f"`{layer}`" for layer in elsewhere[:SHOWN]) + (", ..." if elsewhere[SHOWN:] else "")
            mistakes.append(
                f"key `{KEY}`: `{name}` "
                + (
                    f"matches {found}, which is not a linear layer of the language model"
                    if elsewhere
                    else "matches no layer"
                )
                + f", expected one of {', '.join(allowed)}"
            )
    if mistakes:
        raise UserError(joined_mistakes(mistakes), near(names[0], allowed) if len(names) == 1 else None)
    return rf"(?:.*\.)?language_model\.(?:.*\.)?(?:{'|'.join(re.escape(name) for name in names)})"


def _named(layers: Sequence[str], name: str) -> list[str]:
    """The layers that a name matches: exactly, or as the last parts of their path."""
    return [layer for layer in layers if layer == name or layer.endswith(f".{name}")]
