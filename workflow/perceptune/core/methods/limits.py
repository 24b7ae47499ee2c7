"""Limits on training metrics that stop a round that has gone wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

GROWTH = "_growth"
"""Suffix: the metric divided by its value at the first step of the round."""
AT_START = "_at_start"
"""Suffix: the metric at the first step of the round only."""

Limits = Mapping[str, tuple[float | None, float | None]]
"""Metric, with or without one of these suffixes, to its smallest and largest value; None: no limit."""


def limit_names(watched: Iterable[str]) -> set[str]:
    """The names for which limits can be set, given a method's metrics."""
    return {name + suffix for name in watched for suffix in ("", GROWTH, AT_START)}


def tripped(history: Sequence[Mapping[str, float]], limits: Limits) -> str | None:
    """A message about the first step with a metric outside its limits; None if there is none.

    `history` has the metrics of every step of the round, with the step's number under `step`.
    Missing or NaN metrics and growth from zero never trip a limit.
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
    """The value of a limit's metric; NaN, which never trips a limit, if it was not measured."""
    if name.endswith(AT_START):
        return entry.get(name.removesuffix(AT_START), math.nan) if is_first else math.nan
    if name.endswith(GROWTH):
        metric = name.removesuffix(GROWTH)
        before = first.get(metric, math.nan)
        return entry.get(metric, math.nan) / before if before else math.nan
    return entry.get(name, math.nan)
