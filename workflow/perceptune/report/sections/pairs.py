"""The report's section on generated pairs, with tables as in the P2-DPO paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from perceptune.core.preferences.pair_filter import described
from perceptune.report.gallery import visible

MOST_REASONS = 5
"""Maximum number of drop reasons with a column of their own."""
QUARTILES = ("mean", "sd", "min", "q1", "median", "q3", "max")
TABLES = {
    "ppl_chosen": "perplexity, chosen",
    "ppl_rejected": "perplexity, rejected",
    "margin": "margin, per token",
    "ips": "IPS, summed over tokens",
}
STRENGTHS = {
    "enhanced": "crop, share of the image area",
    "degraded": "crop erased, share of the image area",
    "noise": "noise, r.m.s. per pixel",
}


def pairs_section(statistics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per label the counts of kept and dropped pairs, and the tables as in the paper."""
    return [_pairs_of(label, values) for label, values in statistics.items()]


def _pairs_of(label: str, values: Mapping[str, Any]) -> dict[str, Any]:
    kinds = values["kinds"]
    reasons, dropped = reason_columns([kind["dropped"] for kind in kinds.values()])
    limits = values["limits"]
    return {
        "label": label,
        "groups": values["groups"],
        "kept": values["kept"],
        "reasons": reasons,
        "context": {"own": "the view of each answer", "original": "the original image and question"}[values["context"]],
        "max_ppl": limits["max_ppl"],
        "kinds": [
            {
                "kind": name,
                "pairs": kind["pairs"],
                "kept": kind["kept"],
                "dropped": counts,
                "limits": "none"
                if not limits["margin"][name]
                else " to ".join(f"{v:.3f}" for v in limits["margin"][name]),
                "negative": [_share(kind["negative_ips"][when]) for when in ("before", "after")],
            }
            for (name, kind), counts in zip(kinds.items(), dropped, strict=True)
        ],
        "tables": [
            (f"{name}, {title}", when, _numbers(kind[when][column]))
            for name, kind in kinds.items()
            for column, title in TABLES.items()
            for when in ("before", "after")
            if kind[when][column]
        ],
        "strength": [
            (STRENGTHS.get(view, view), _numbers(found)) for view, found in values["strength"].items() if found
        ],
        "clip": _clip_rows(values.get("clip")),
        "above": _above_image(values.get("clip")),
    }


def given_section(preferences: Mapping[str, Sequence[float]]) -> list[tuple[str, list[str]]]:
    """Per label the IPS of dataset preferences, as in the first column of P2-DPO's table 3."""
    return [
        (f"{label} ({_share(sum(ips < 0 for ips in values) / len(values))} below 0)", _numbers(found))
        for label, values in preferences.items()
        if (found := described(values)) is not None
    ]


def reason_columns(dropped: Sequence[Mapping[str, int]]) -> tuple[list[str], list[list[int]]]:
    """Titles of columns with reasons for dropping something, and their counts in each row.

    The most frequent reasons have a column of their own, sorted by name. The others share one, because
    some occur in only one row.
    """
    counts: Counter[str] = Counter()
    for kind in dropped:
        counts.update(kind)
    own = sorted(reason for reason, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_REASONS])
    others = set(counts) - set(own)
    titles = [visible(reason, 80) for reason in own] + (["other reasons"] if others else [])
    rows = [[row.get(reason, 0) for reason in own] for row in dropped]
    if others:
        rows = [[*row, sum(of.get(reason, 0) for reason in others)] for row, of in zip(rows, dropped, strict=True)]
    return titles, rows


def _clip_rows(clip: Mapping[str, Any] | None) -> list[tuple[str, list[str]]]:
    if not clip:
        return []
    titles = {"crop": "attention crop", "inverse": "inverse crop (control)"}
    kinds = {"ratio": "crop / image", "difference": "100 × (crop − image)"}
    return [
        (f"{titles[name]}, {kinds[kind]}", _numbers(clip[name][kind]))
        for name in titles
        for kind in kinds
        if clip[name][kind]
    ]


def _above_image(clip: Mapping[str, Any] | None) -> str:
    """A sentence on how often each crop has a higher CLIP score than the image."""
    if not clip:
        return ""
    titles = {"crop": "the attention crop", "inverse": "the inverse crop"}
    parts = [
        f"{title} scores higher than the image for {_share(clip[name]['above_image'])} of the examples"
        for name, title in titles.items()
        if clip[name].get("above_image") is not None
    ]
    omitted = max((clip[name].get("without_ratio", 0) for name in titles), default=0)
    parts += [f"examples omitted because the image scores 0 or less: {omitted:,}"] if omitted else []
    return "; ".join(parts)


def _numbers(found: Mapping[str, float]) -> list[str]:
    shown = [f"{found[name]:.3f}".replace("-", "\u2212") for name in QUARTILES]
    return [f"{int(found['n']):,}", *shown]


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"
