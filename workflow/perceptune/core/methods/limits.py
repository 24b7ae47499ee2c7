"""When a round of training has gone wrong: limits for what is watched (dossier d.6)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

GROWTH = "_growth"
"""The metric divided by its value at the first step of the round."""
AT_START = "_at_start"
"""The metric at the first step of the round only."""

Limits = Mapping[str, tuple[float | None, float | None]]
"""Metric, with or without one of these endings, to its least and its largest value; None: no limit."""


def limit_names(watched: Iterable[str]) -> set[str]:
    """What limits can be set for, given the metrics of a method."""
    return {name + ending for name in watched for ending in ("", GROWTH, AT_START)}


def tripped(history: Sequence[Mapping[str, float]], limits: Limits) -> str | None:
    """A sentence on the first step whose metrics are outside their limits; None if there is none.

    `history` has the metrics of every step since the round began, with its number under `step`. What is absent or NaN was not
    measured; growth from zero cannot be.
    """
    for number, entry in enumerate(history):
        for name, (least, largest) in limits.items():
            value = _measured(name, history[0], entry, is_first=number == 0)
            step = f"at step {entry.get('step', number + 1):.0f}"
            if least is not None and value < least:
                return f"`{name}` is {value:.4g} {step}, below its limit {least:g}"
            if largest is not None and value > largest:
                return f"`{name}` is {value:.4g} {step}, above its limit {largest:g}"
    return None


def _measured(name: str, first: Mapping[str, float], entry: Mapping[str, float], is_first: bool) -> float:
    """NaN, which is neither below nor above any limit, where there is nothing to compare."""
    if name.endswith(AT_START):
        return entry.get(name.removesuffix(AT_START), math.nan) if is_first else math.nan
    if name.endswith(GROWTH):
        metric = name.removesuffix(GROWTH)
        before = first.get(metric, math.nan)
        return entry.get(metric, math.nan) / before if before else math.nan
    return entry.get(name, math.nan)
