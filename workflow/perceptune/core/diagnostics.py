"""Diagnostics of pairs: norms of gradients, traces of the Fisher information, and dependence on the image.

They follow quantities in section 3 of P2-DPO (arXiv:2606.03376), which it does not measure; the
estimators are ours. docs/diagnostics.md defines them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from perceptune.contracts.seeds import derived_seed
from perceptune.core.benchmarks.bootstrap import paired_sum
from perceptune.core.methods.logprob_queries import Look, Pairs
from perceptune.core.rewards.metrics import Columns, Metric, mean

RESAMPLES = 9999
"""Bootstrap resamples of pairs."""


def _norm(name: str) -> Metric:
    return lambda columns: np.sqrt(columns[f"{name}_squared"]).mean(axis=-1)


def _cosine(columns: Columns) -> np.ndarray:
    """Mean cosine of both gradients, from squared norms: 2 a.b = |a|^2 + |b|^2 - |a - b|^2."""
    chosen, rejected = columns["chosen_squared"], columns["rejected_squared"]
    product = (chosen + rejected - columns["difference_squared"]) / 2
    size = np.sqrt(chosen * rejected)
    return np.divide(product, size, out=np.zeros(np.shape(product)), where=size > 0).mean(axis=-1)


def _both(name: str) -> Metric:
    """The mean over the answers of both roles."""
    return lambda columns: ((columns[f"chosen_{name}"] + columns[f"rejected_{name}"]) / 2).mean(axis=-1)


def _image_gap(columns: Columns) -> np.ndarray:
    return (columns["chosen_image"] - columns["rejected_image"]).mean(axis=-1)


OF_WEIGHTS: dict[str, Metric] = {
    "gradient_difference": _norm("difference"),
    "gradient_chosen": _norm("chosen"),
    "gradient_rejected": _norm("rejected"),
    "gradient_cosine": _cosine,
    "fisher_trace": _both("drawn_squared"),
    "empirical_fisher_trace": _both("squared"),
}
"""Metrics that depend on the weights."""
OF_ANSWERS: dict[str, Metric] = {
    "image_dependence_chosen": mean("chosen_image"),
    "image_dependence_rejected": mean("rejected_image"),
    "image_dependence_difference": _image_gap,
    "tokens_chosen": mean("chosen_tokens"),
    "tokens_rejected": mean("rejected_tokens"),
}
"""Metrics that do not."""


def compared(looks: Iterable[Look], pairs: Pairs, count: int) -> dict[str, Look]:
    """Kind of pair to the query of its chosen and its rejected answer, under the view of a method's
    query of both.

    `looks` are the method's queries for a group of `count` answers. Without `pairs`, the only kind is
    `extremes`, the first and the last answer. Kinds that the method does not compare are left out.
    """
    queries, found = list(looks), {}
    for kind, (chosen, rejected) in (pairs or {"extremes": (0, count - 1)}).items():
        view = next((one.view for one in queries if {chosen, rejected} <= {*one.responses}), None)
        if view is not None and chosen != rejected:
            found[kind] = Look(view, (chosen, rejected))
    return found


def drawn_groups(names: Iterable[str], count: int, seed: int) -> set[str]:
    """Up to `count` of these groups, drawn without replacement. A group's rank depends on its name and
    the seed only, so more groups include the fewer ones."""
    return set(sorted(names, key=lambda name: (derived_seed("diagnosed group", seed, name), name))[:count])


def uniforms(count: int, seed: int, *address: str) -> np.ndarray:
    """`count` numbers in [0, 1) that depend on the seed and the address only."""
    return np.random.default_rng(derived_seed("drawn tokens", seed, *address)).random(count)


def means(columns: Columns, metrics: Iterable[str], seed: int, address: Sequence[str]) -> list[dict[str, float | str]]:
    """Value and 95 % bootstrap interval of each metric over pairs, the last axis of the columns.

    All metrics of an address share their bootstrap samples.
    """
    found: list[dict[str, float | str]] = []
    for name in metrics:
        metric = (OF_WEIGHTS | OF_ANSWERS)[name]
        value, low, high = paired_sum(
            [(1, metric, columns)], resamples=RESAMPLES, seed=derived_seed("bootstrap", seed, *address)
        )
        found.append({"metric": name, "value": value, "ci_low": low, "ci_high": high})
    return found
