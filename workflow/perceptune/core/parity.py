"""How far the log-probabilities of one policy may differ between two implementations or two copies of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """Largest differences of one token's log-probability in nats."""

    mean: float
    max: float


TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-3),
    "float16": Tolerance(0.02, 0.2),
    "bfloat16": Tolerance(0.1, 1.0),
}
"""Number format to what is accepted between vLLM and transformers, whose kernels round in another order.

The bundled tiny model differs by 1e-6 (mean) and 5e-6 (largest) in float32, 0.0015 and 0.012 in float16, 0.013 and 0.11 in
bfloat16, of 72 tokens on a CPU; large models, with more layers, were not measured.
"""
SHARE = 0.5
"""Of the adapter's effect: so far may the exported weights be from base and adapter, both computed in float32."""
NO_EFFECT = 1e-5
"""Mean difference in nats below which an adapter does nothing that could be lost."""


class Difference(NamedTuple):
    """Of log-probabilities of the same tokens, in nats."""

    mean: float
    max: float


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Mean and largest absolute difference of two sequences of the same length; NaN where one of them has one."""
    gaps = np.abs(np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float))
    return Difference(float(gaps.mean()), float(gaps.max()))


def disagreement(found: Difference, allowed: Tolerance) -> str | None:
    """What is too far apart, in words; None if nothing is."""
    for name, value, limit in (("mean", found.mean, allowed.mean), ("largest", found.max, allowed.max)):
        if not value <= limit:  # NaN is too far, too
            return f"{name} difference {value:.3g} nats, at most {limit:.3g} are accepted"
    return None


def lost(exported: Difference, effect: Difference) -> str | None:
    """Why exported weights are not base and adapter, in words: what the adapter does is not in them. None if it is.

    `exported`: between them and base and adapter. `effect`: between the base with and without adapter.
    """
    if not exported.mean <= max(SHARE * effect.mean, NO_EFFECT):
        return (
            f"mean difference {exported.mean:.3g} nats from base and adapter, whose own effect is {effect.mean:.3g}; "
            f"at most {SHARE:.0%} of it are accepted"
        )
    return None
