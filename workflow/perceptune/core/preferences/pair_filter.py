"""Filter pairs by perplexity and margin, and the statistics of P2-DPO's tables (arXiv:2606.03376)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

ROUNDING = 1e-9
"""Tolerance of the margin limits, so that a margin of exactly -0.174 is kept."""


def perplexity(mean_logprob: float) -> float:
    """exp of minus the mean log-probability per token; infinite where a float64 cannot hold it."""
    try:
        return math.exp(-mean_logprob)
    except OverflowError:
        return math.inf


def central_limits(margins: Sequence[float], share: float) -> tuple[float, float]:
    """The quantiles that bound the central `share` of the margins (0.95: 2.5 % and 97.5 %)."""
    low, high = np.quantile(np.asarray(margins, dtype=float), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def rejection(
    ppl_chosen: float, ppl_rejected: float, margin: float, max_ppl: float | None, limits: tuple[float, float] | None
) -> str | None:
    """The reason for dropping a pair, or None.

    Both perplexities must be below `max_ppl`, and the margin within `limits`, inclusive.
    """
    if max_ppl is not None and not (ppl_chosen < max_ppl and ppl_rejected < max_ppl):  # NaN fails both
        return "perplexity"
    if limits is not None and not limits[0] - ROUNDING <= margin <= limits[1] + ROUNDING:
        return "margin"
    return None


def described(values: Iterable[float]) -> dict[str, float] | None:
    """n, mean, sample sd, extremes and quartiles, as in P2-DPO's table 5; None if empty."""
    numbers = np.asarray(list(values), dtype=float)
    if not len(numbers):
        return None
    with np.errstate(invalid="ignore"):  # of an infinite perplexity
        low, q1, median, q3, high = np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1])
        spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    found = {"mean": numbers.mean(), "sd": spread, "min": low, "q1": q1, "median": median, "q3": q3, "max": high}
    return {"n": float(len(numbers)), **{name: float(value) for name, value in found.items()}}


def pair_statistics(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of pairs of one kind, before and after filtering.

    Counts by reason, and the values of P2-DPO's tables 5 (perplexities, margin) and 3 (IPS).
    """
    measured = [pair for pair in pairs if pair["ips"] is not None]  # pairs of two different answers
    kept = [pair for pair in measured if pair["kept"]]
    dropped: dict[str, int] = {}
    for pair in pairs:
        if not pair["kept"]:
            dropped[pair["reason"]] = dropped.get(pair["reason"], 0) + 1
    tables = {
        when: {
            name: described(pair[name] for pair in chosen) for name in ("ppl_chosen", "ppl_rejected", "margin", "ips")
        }
        for when, chosen in (("before", measured), ("after", kept))
    }
    negative = {when: _share(p["ips"] < 0 for p in chosen) for when, chosen in (("before", measured), ("after", kept))}
    return {
        "pairs": len(pairs),
        "kept": len(kept),
        "dropped": dict(sorted(dropped.items())),
        "negative_ips": negative,
        **tables,
    }


def clip_statistics(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """P2-DPO's table 6: CLIP scores of the crop and of the inverse crop, relative to the image's.

    `ratio` to the image's score, and `difference` from it in units of 0.01.
    """
    found: dict[str, Any] = {}
    for name in ("crop", "inverse"):
        both = [(row[name], row["image"]) for row in rows if row[name] is not None and row["image"] is not None]
        sane = [(part, whole) for part, whole in both if whole is not None and part is not None and whole > 0]
        found[name] = {
            "ratio": described(part / whole for part, whole in sane),
            "difference": described(100 * (part - whole) for part, whole in sane),
            "above_image": _share(part > whole for part, whole in sane),
            "without_ratio": len(both) - len(sane),
        }
    return found


def _share(values: Iterable[bool]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
