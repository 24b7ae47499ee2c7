"""Log-prob queries: which responses of a group are evaluated, and under which views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAIR_VIEWS = ("enhanced", "degraded", "noise")
"""Views that each group of pairs defines itself, independently of the config's views."""

Pairs = Mapping[str, tuple[int, int]]
"""Kind of pair to the indices of its chosen and rejected response in the group."""


@dataclass(frozen=True)
class Look:
    """A log-prob query: the log-probs of some responses under one view."""

    view: str
    responses: tuple[int, ...]
    """Indices in the group."""
