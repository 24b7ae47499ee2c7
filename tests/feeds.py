"""Batches of groups that are in memory."""

from collections.abc import Callable, Sequence
from typing import Any

from perceptune.engines.training.feeding import Feed, Source


def fed(encoder: Callable[[Any], Any], groups: Sequence[Any]) -> Feed[Any]:
    """A feed without worker processes."""
    return Feed([Source(groups, lambda: encoder)])
