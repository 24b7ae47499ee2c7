"""The report's section on comparisons of two answers, and on agreement of judges and people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perceptune.contracts.tables.agreements import AGREEMENTS
from perceptune.contracts.tables.comparisons import COMPARISONS
from perceptune.contracts.tables.io import read_table
from perceptune.core.comparisons.measures import OF_PAIRS, SHARES
from perceptune.report.result_text import text_lines
from perceptune.report.results import FEW_QUESTIONS, Measure, Row, measure
from perceptune.report.svg import finite

COUNTED = ("win", "tie", "lose", *OF_PAIRS)
"""Shares that are shown with their count."""
TOKEN_MEASURES = ("precision", "recall", "f1", "kappa")
"""Columns of the table on selected tokens; all but kappa are percentages."""


def comparison_sections(tables: Mapping[str, Path]) -> list[dict[str, Any]]:
    """One part per comparison. Raises `UserError` for a broken table."""
    return [
        _section(rows) for path in tables.values() if (rows := _reliable(read_table(path, COMPARISONS).to_pylist()))
    ]


def agreement_rows(tables: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row per agreement on answers and part, with its table of counts. Raises `UserError` for a broken table."""
    return [row for path in tables.values() for row in _agreements(_reliable(read_table(path, AGREEMENTS).to_pylist()))]


def token_rows(tables: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row per agreement with selected tokens and part: the selection, the random one of equal size,
    and the difference. Raises `UserError` for a broken table."""
    return [row for path in tables.values() for row in _of_tokens(_reliable(read_table(path, AGREEMENTS).to_pylist()))]


BOUNDS = ("ci_low", "ci_high", "difference_ci_low", "difference_ci_high")


def _reliable(rows: Sequence[Row]) -> list[Row]:
    """Without the intervals of fewer than `FEW_QUESTIONS` answers, see `results.reliable`."""
    return [row if row["n"] >= FEW_QUESTIONS else {**row, **{b: None for b in BOUNDS if b in row}} for row in rows]


def comparison_lines(
    sections: Sequence[Mapping[str, Any]],
    agreements: Sequence[Mapping[str, Any]],
    tokens: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """The lines of the result table."""
    lines = [line for section in sections for line in text_lines(f"{section['title']}: {section['sentence']}")]
    for row in agreements:
        number = f"{row['agreement']} {row['agreement_interval']}".strip()
        kappa = f"{row['kappa']} {row['kappa_interval']}".strip()
        lines += text_lines(f"{row['title']}: agreement {number} %, kappa {kappa}, n = {row['n']}")
    for row in tokens:
        parts = [f"{cell['name']} {cell['value']} {cell['interval']}".strip() for cell in row["cells"]]
        lines += text_lines(f"{row['title']}: {', '.join(parts)}, n = {row['n']}, {row['unread']} unreadable")
    return lines


def _section(rows: Sequence[Row]) -> dict[str, Any]:
    first = rows[0]
    against = f"{first['one']} against {first['other']}"
    shared = {"name": first["comparison"], "against": against, "source": first["source"], "judge": first["judge"]}
    shared["title"] = f"{first['comparison']} ({against} on {first['source']})"
    return {**shared, **(_of_verdicts(rows) if first["judge"] else _of_metrics(rows))}


def _of_verdicts(rows: Sequence[Row]) -> dict[str, Any]:
    """A row per part, a column per share."""
    parts: dict[str, dict[str, Row]] = {}
    for row in rows:
        parts.setdefault(row["part"], {})[row["metric"]] = row
    names = list(next(iter(parts.values())))
    rate = rows[0]
    how = _measure(rate["metric"])
    decided = f"win rate {how.number(rate['value'])} % {how.interval(rate['ci_low'], rate['ci_high'])}".strip()
    sentence = f"{decided}, {rate['n']} outcomes, {rate['n_failed']} unreadable, by {rate['judge']}"
    return {
        "judged": True,
        "sentence": " ".join(sentence.split()),
        "columns": [_measure(name).heading for name in names],
        "rows": [
            {
                "name": part,
                "cells": [_cell(found[name]) for name in names],
                "n": found[names[0]]["n"],
                "failed": found[names[0]]["n_failed"],
            }
            for part, found in parts.items()
        ],
    }


def _of_metrics(rows: Sequence[Row]) -> dict[str, Any]:
    """A row per metric of the greedy answers under each view."""
    greedy = [row for row in rows if row["condition"] == "greedy"]
    shown = [_metric_row(row) for row in greedy]
    primary = shown[0]
    unit = " points" if measure(greedy[0]["metric"]).percent else ""
    sentence = f"{primary['name']}: difference {primary['difference']}{unit} {primary['difference_interval']}"
    return {"judged": False, "sentence": " ".join(sentence.split()), "columns": [], "rows": shown}


def _metric_row(row: Row) -> dict[str, Any]:
    how = measure(row["metric"])
    excluded = finite(row["difference_ci_low"]) and not row["difference_ci_low"] <= 0 <= row["difference_ci_high"]
    return {
        "name": how.heading,
        "view": row["view"],
        "part": row["part"],
        "lower_is_better": how.lower_is_better,
        "one": how.number(row["value"]),
        "one_interval": how.interval(row["ci_low"], row["ci_high"]),
        "other": how.number(row["other_value"]),
        "difference": how.difference(row["difference"]),
        "difference_interval": how.difference_interval(row["difference_ci_low"], row["difference_ci_high"]),
        "star": bool(excluded),
        "n": row["n"],
        "failed": row["n_failed"],
    }


def _measure(metric: str) -> Measure:
    share = SHARES[metric]
    return Measure(share.label, share.percent)


def _cell(row: Row) -> dict[str, str]:
    how = _measure(row["metric"])
    count = f"{row['count']:g} of {row['of']:g}" if row["metric"] in COUNTED and row["of"] else ""
    return {"value": how.number(row["value"]), "interval": how.interval(row["ci_low"], row["ci_high"]), "count": count}


def _agreements(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    if _are_of_tokens(rows):
        return
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        by_metric = {row["metric"]: row for row in own}
        raw, kappa = by_metric["agreement"], by_metric["kappa"]
        share, plain = Measure("agreement"), Measure("kappa", percent=False)
        counted = {(row["label"], row["other_label"]): int(row["value"]) for row in own if row["metric"] == "count"}
        labels = sorted({label for both in counted for label in both})
        yield {
            "name": raw["agreement"],
            "title": f"{raw['agreement']} ({raw['judge']} and {raw['other']} on {raw['source']}, {part})",
            "source": raw["source"],
            "part": part,
            "judge": raw["judge"],
            "other": raw["other"],
            "agreement": share.number(raw["value"]),
            "agreement_interval": share.interval(raw["ci_low"], raw["ci_high"]),
            "kappa": plain.number(kappa["value"]),
            "kappa_interval": plain.interval(kappa["ci_low"], kappa["ci_high"]),
            "reason": kappa["reason"],
            "n": raw["n"],
            "unread": raw["n_unread"],
            "unlabelled": raw["n_unlabelled"],
            "labels": labels,
            "counts": [[counted.get((label, other), 0) for other in labels] for label in labels],
        }


def _are_of_tokens(rows: Sequence[Row]) -> bool:
    return any(row["metric"] == TOKEN_MEASURES[0] for row in rows)


def _of_tokens(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    if not _are_of_tokens(rows):
        return
    for part in dict.fromkeys(row["part"] for row in rows):
        own = {row["metric"]: row for row in rows if row["part"] == part}
        first = own[TOKEN_MEASURES[0]]
        yield {
            "name": first["agreement"],
            "title": f"{first['agreement']} (tokens of {first['source']} and labels of {first['judge']}, {part})",
            "source": first["source"],
            "judge": first["judge"],
            "part": part,
            "cells": [_token_cell(own[metric], difference=part == "difference") for metric in TOKEN_MEASURES],
            "n": first["n"],
            "unread": first["n_unread"],
        }


def _token_cell(row: Row, *, difference: bool) -> dict[str, str]:
    how = Measure(row["metric"], percent=row["metric"] != "kappa")
    if difference:
        interval = how.difference_interval(row["ci_low"], row["ci_high"])
        return {"name": row["metric"], "value": how.difference(row["value"]), "interval": interval}
    interval = how.interval(row["ci_low"], row["ci_high"])
    return {"name": row["metric"], "value": how.number(row["value"]), "interval": interval}
