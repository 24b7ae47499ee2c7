"""Which layers an adapter may be put on: linear ones of the language model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from perceptune.contracts.errors import SHOWN, UserError, joined_mistakes, near

KEY = "lora.target_modules"


def language_layers(model: nn.Module, names: Sequence[str]) -> str:
    """A regular expression of the layers of these names (`q_proj`, `self_attn.q_proj`) in the language model, and nowhere else.

    Layers of the vision tower and projector that have the same names stay frozen. `UserError` for a name that the language
    model has no linear layer of.
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
                + (f"names {found}, outside the linear layers of the language model" if elsewhere else "names no layer")
                + f", expected one of {', '.join(allowed)}"
            )
    if mistakes:
        raise UserError(joined_mistakes(mistakes), near(names[0], allowed) if len(names) == 1 else None)
    return rf"(?:.*\.)?language_model\.(?:.*\.)?(?:{'|'.join(re.escape(name) for name in names)})"


def _named(layers: Sequence[str], name: str) -> list[str]:
    """The layers that a name means: it, or what ends in it after a dot."""
    return [layer for layer in layers if layer == name or layer.endswith(f".{name}")]
