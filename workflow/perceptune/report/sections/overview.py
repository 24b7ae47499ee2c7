"""The matrix of tasks and policies at the top of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perceptune.report.results import Result, chance, measure, verdict
from perceptune.report.svg import finite

VERDICTS = {
    "better": "better",
    "worse": "worse",
    "same": "not distinguishable",
    "few": "too few questions to tell",
    "unknown": "no interval",
}
"""Verdict to the words in a cell."""


def overview(found: Sequence[Result], styles: Mapping[str, str]) -> dict[str, Any] | None:
    """A row per benchmark and task, and a column per coloured policy, with values and gains in the
    primary metric; None without results."""
    policies = list(dict.fromkeys(policy for result in found for policy in result.rows))
    shown = [policy for policy in policies if styles.get(policy, "rest") != "rest"] or policies[:1]
    if not found or not policies:
        return None
    cells = [[_cell(result, policy) for policy in shown] for result in found]
    all_cells = [_cell(result, policy) for result in found for policy in result.rows]
    compared = sum(cell["verdict"] in ("better", "worse", "same") for cell in all_cells)
    rows = [{"result": r, "measure": measure(r.primary), "cells": row} for r, row in zip(found, cells, strict=True)]
    return {
        "policies": [(policy, styles.get(policy, "rest")) for policy in shown],
        "rows": rows,
        "left_out": len(policies) - len(shown),
        "notes": chance(compared),
    }


def _cell(result: Result, policy: str) -> dict[str, str]:
    """Value, gain, verdict and the verdict in words; a base model has no gain."""
    row, how = result.rows.get(policy, {}).get(result.primary), measure(result.primary)
    if row is None:
        return {"value": "n/a", "gain": "", "verdict": "", "words": "not evaluated"}
    value = how.number(row["value"])
    if not result.trained(policy):
        return {"value": value, "gain": "", "verdict": "", "words": "base"}
    gain = how.difference(row["gain"]) if finite(row["gain"]) else ""
    found = verdict(row, result.primary)
    return {"value": value, "gain": gain, "verdict": found, "words": VERDICTS[found]}
