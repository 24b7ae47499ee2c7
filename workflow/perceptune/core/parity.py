"""Tolerances for log-probs of one policy from two implementations or two copies of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """Largest accepted mean and maximum of the per-token log-prob differences, in nats."""

    mean: float
    max: float


TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-3),
    "float16": Tolerance(0.02, 0.2),
    "bfloat16": Tolerance(0.1, 1.0),
}
"""Dtype to the tolerance between vLLM and transformers, whose kernels round in different orders.

Measured mean and maximum for the bundled tiny model on 72 tokens on a CPU: 1e-6 and 5e-6 in
float32, 0.0015 and 0.012 in float16, 0.013 and 0.11 in bfloat16. Larger models were not measured.
"""
SHARE = 0.5
"""Largest accepted difference between exported weights and base plus adapter, as a fraction of the
adapter's effect, in float32."""
NO_EFFECT = 1e-5
"""Mean difference in nats below which an adapter has no effect that could be lost."""


class Difference(NamedTuple):
    """Absolute differences between log-probs of the same tokens, in nats."""

    mean: float
    max: float


def difference(logprobs: Sequence[float], others: Sequence[float]) -> Difference:
    """Mean and largest absolute difference of two equally long sequences; NaN for NaN."""
    gaps = np.abs(np.asarray(logprobs, dtype=float) - np.asarray(others, dtype=float))
    return Difference(float(gaps.mean()), float(gaps.max()))


def disagreement(found: Difference, allowed: Tolerance) -> str | None:
    """A message if the difference exceeds the tolerance; else None."""
    for name, value, limit in (("mean", found.mean, allowed.mean), ("largest", found.max, allowed.max)):
        if not value <= limit:  # NaN also exceeds it
            return f"{name} difference {value:.3g} nats, expected at most {limit:.3g}"
    return None


def lost(exported: Difference, effect: Difference) -> str | None:
    """A message if exported weights lack the adapter's effect; else None.

    `exported`: difference between the exported weights and base plus adapter. `effect`: difference
    between the base with and without the adapter.
    """
    if not exported.mean <= max(SHARE * effect.mean, NO_EFFECT):
        return (
            f"mean difference {exported.mean:.3g} nats from base plus adapter, expected at most {SHARE:.0%} "
            f"of the adapter's effect of {effect.mean:.3g} nats"
        )
    return None
