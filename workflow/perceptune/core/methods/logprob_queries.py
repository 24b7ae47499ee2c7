"""What is asked of the responses of a group, and under which views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAIR_VIEWS = ("enhanced", "degraded", "noise")
"""Views that a group of pairs brings itself, whatever the config calls them."""

Pairs = Mapping[str, tuple[int, int]]
"""Kind of a pair to the places of its chosen and its rejected response in the group."""


@dataclass(frozen=True)
class Look:
    """Log-probabilities of some responses under one view."""

    view: str
    responses: tuple[int, ...]
    """Places in the group."""
