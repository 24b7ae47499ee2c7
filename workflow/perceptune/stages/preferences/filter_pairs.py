"""Filters pairs, adds CLIP scores, and counts what was dropped."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from perceptune.contracts.config import FilterBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.files import write_text
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.clips import CLIPS
from perceptune.contracts.tables.io import Rows, read_batches, read_table, table_writer
from perceptune.contracts.tables.places import Places
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.preferences.pair_filter import (
    central_limits,
    clip_statistics,
    described,
    pair_statistics,
    perplexity,
    rejection,
)

KINDS = ("focus", "robust")
DECIDED = pa.schema([PREFERENCES.schema.field(name) for name in ("pairs", "numbers", "kept", "reason")])
"""The columns that change."""
DECIDING = ("group_id", "example_id", *DECIDED.names, "views.list.element.view", "views.list.element.strength")
"""What the decisions are made from: all groups have it in memory."""
WRITTEN = 1024
"""Groups with messages and answers in memory."""


def run(
    *,
    pairs: Path,
    terms: Path,
    clips: Path | None,
    preferences: Path,
    statistics: Path,
    config: FilterBlock,
) -> None:
    """Writes `preferences`, the filtered groups of `pairs`, and `statistics` (JSON).

    `terms` are the reference log-probs under the original image and the plain question. They give
    the IPS, and the margins if `context` is `original`. Raises `UserError` if no pair is kept.
    """
    groups = [group for part in Rows(pairs, PREFERENCES, DECIDING).groups() for group in part.to_pylist()]
    original, places = Rows(terms, TERMS, ["logprobs"]), Places(read_table(terms, TERMS, ["group_id"])["group_id"])
    scores = {row["example_id"]: row for row in read_table(clips, CLIPS).to_pylist()} if clips else {}
    for group in groups:
        for pair in group["pairs"]:
            if pair["margin"] is not None and group["kept"]:
                _measure(pair, original[places[group["group_id"]]]["logprobs"], config)
        group["numbers"] = _numbers(scores.get(group["example_id"]))
    limits = _limits(groups, config)
    for group in groups:
        _decide(group, config, limits)
    _cap(groups, config)
    counted = _statistics(groups, scores, limits, config)
    if not counted["kept"]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in counted["dropped"].items())
        raise UserError(
            f"no pair of the {len(groups)} records is kept: {reasons}", "widen `max_ppl` and `margin` of the filter"
        )
    tell(f"kept {counted['kept']} of {len(groups)} records; dropped: {counted['dropped']}")
    inputs = {"pairs": pairs, "terms": terms, **({"clips": clips} if clips else {})}
    with table_writer(preferences, PREFERENCES) as table:
        for part in read_batches(pairs, PREFERENCES, PREFERENCES.columns, WRITTEN):
            decided = pa.Table.from_pylist(groups[table.rows : table.rows + part.num_rows], DECIDED)
            table.write(
                pa.table({name: (decided if name in DECIDED.names else part)[name] for name in part.column_names})
            )
        table.lineage = lineage("preferences.filter_pairs", config.model_dump(mode="json"), inputs)
    write_text(statistics, json.dumps(counted, indent=2) + "\n")


def _measure(pair: dict[str, Any], logprobs: list[list[float]], config: FilterBlock) -> None:
    """IPS of different answers, and for context `original` perplexities and margin; otherwise these
    are already set."""
    chosen, rejected = logprobs[pair["chosen"]], logprobs[pair["rejected"]]
    if pair["kept"]:
        pair["ips"] = math.fsum(chosen) - math.fsum(rejected)
    if config.context == "original":
        means = [math.fsum(values) / len(values) for values in (chosen, rejected)]
        pair |= {
            "ppl_chosen": perplexity(means[0]),
            "ppl_rejected": perplexity(means[1]),
            "margin": means[0] - means[1],
        }


def _numbers(score: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if score is None or score["crop"] is None or score["image"] is None:
        return []
    return [
        {"name": f"clip_{name}", "value": score[name]}
        for name in ("image", "crop", "inverse")
        if score[name] is not None
    ]


def _limits(groups: list[dict[str, Any]], config: FilterBlock) -> dict[str, tuple[float, float] | None]:
    """Kind of pair to the limits of its margin."""
    limits: dict[str, tuple[float, float] | None] = dict.fromkeys(KINDS, config.margin)
    if config.central_quantile is not None:
        for kind in KINDS:
            margins = [p["margin"] for g in groups for p in g["pairs"] if p["kind"] == kind and p["kept"]]
            limits[kind] = central_limits(margins, config.central_quantile) if margins else None
    return limits


def _decide(group: dict[str, Any], config: FilterBlock, limits: Mapping[str, tuple[float, float] | None]) -> None:
    focus = next((pair for pair in group["pairs"] if pair["kind"] == "focus"), None)
    for pair in group["pairs"]:
        deciding = pair if config.applies_to == "each" else focus
        if pair["kept"]:
            pair["reason"] = None if deciding is None else _rejection(deciding, config, limits)
    for pair in group["pairs"]:
        pair["kept"] = pair["kept"] and pair["reason"] is None
    group["kept"] = any(pair["kept"] for pair in group["pairs"])
    if not group["kept"]:
        group["reason"] = "; ".join(f"{pair['kind']}: {pair['reason']}" for pair in group["pairs"])


def _rejection(
    pair: Mapping[str, Any], config: FilterBlock, limits: Mapping[str, tuple[float, float] | None]
) -> str | None:
    """Why this pair's numbers fail; None if they pass, or if an answer is missing or empty."""
    if pair["margin"] is None:
        return None
    numbers = (pair["ppl_chosen"], pair["ppl_rejected"], pair["margin"])
    return rejection(*numbers, config.max_ppl, limits[pair["kind"]])


def _cap(groups: list[dict[str, Any]], config: FilterBlock) -> None:
    """Drops all but `max_groups` records, chosen by a hash of seed and id, independent of order."""
    if config.max_groups is None:
        return
    kept = [group for group in groups if group["kept"]]
    surplus = sorted(kept, key=lambda g: derived_seed("filter", config.seed, g["group_id"]))[config.max_groups :]
    for group in surplus:
        group |= {"kept": False, "reason": "not chosen (max_groups)"}


def _statistics(
    groups: list[dict[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
    limits: Mapping[str, tuple[float, float] | None],
    config: FilterBlock,
) -> dict[str, Any]:
    by_kind = {k: [p for g in groups for p in g["pairs"] if p["kind"] == k] for k in KINDS}
    views: dict[str, list[float]] = {}
    for group in groups:
        for view in group["views"]:
            views.setdefault(view["view"], []).append(view["strength"])
    found: dict[str, Any] = {
        "groups": len(groups),
        "kept": sum(group["kept"] for group in groups),
        "dropped": dict(sorted(Counter(_brief(group["reason"]) for group in groups if not group["kept"]).items())),
        "limits": {"max_ppl": config.max_ppl, "margin": {kind: limits[kind] for kind in KINDS}},
        "context": config.context,
        "kinds": {kind: pair_statistics(pairs) for kind, pairs in by_kind.items() if pairs},
        "strength": {view: described(values) for view, values in sorted(views.items())},
    }
    if scores:
        found["clip"] = clip_statistics(list(scores.values()))
    return found


def _brief(reason: str) -> str:
    """A reason, cut to a length that groups well."""
    return reason if len(reason) <= 80 else reason[:77] + "..."
