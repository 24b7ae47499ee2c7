"""Section of the report: gain or format?

Like `core.sections`: frames to plain values. The rule and the words are those of `core.explanations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from perceptune.report.results import TEXT_WIDTH, Result, Row, finite, measure, text_lines, verdict
from perceptune.report.sections.attention import noise_rows, text_columns
from perceptune.report.sections.verdicts import CONTROLS, Controlled, best_of, control_rows, says, sentences

EMPTY = {"value": "n/a", "interval": "", "detail": "", "says": ""}
SAID = {"explained": "explains it", "partly": "explains it partly", "undecided": "undecided", "not": ""}
"""What stands beside a number; nothing where a control explains nothing."""


def control_section(
    metrics: pl.DataFrame,
    result: Result,
    noise: Mapping[str, float],
    controlled: Controlled,
    styles: Mapping[str, str],
) -> dict[str, Any] | None:
    """The table and the sentences of one benchmark and task; None where no policy was held against controls."""
    compared = {p: control_rows(controlled, result, p) for p in result.rows if p in controlled.policies}
    there = [control for control in CONTROLS if any(control in rows for rows in compared.values())]
    if not there:
        return None
    levels, noisy = noise_rows(metrics, result, noise)
    drawn = best_of(metrics, result)
    titles = [_title(control, compared.values()) for control in there]
    titles += [f"best of {max(int(row['k']) for row in drawn.values())} each"] if drawn else []
    titles += [f"noise {levels[-1]:g}"] if levels else []
    return {
        "result": result,
        "measure": measure(result.primary),
        "titles": ["gain", *titles],
        "rows": [
            {
                "policy": policy,
                "style": styles.get(policy, "rest"),
                "cells": [
                    _gain_cell(result.rows[policy].get(result.primary)),
                    *(_control_cell(rows.get(control), result, policy) for control in there),
                    *([_gain_cell(drawn.get(policy))] if drawn else []),
                    *([_gain_cell(noisy[policy][-1])] if levels else []),
                ],
            }
            for policy, rows in compared.items()
        ],
        "sentences": sentences(metrics, result, noise, controlled),
    }


def control_lines(
    metrics: pl.DataFrame, found: Sequence[Result], noise: Mapping[str, float], controlled: Controlled
) -> Iterator[str]:
    """The same as plain text, at most 100 columns wide; none without controls."""
    for result in found:
        section = control_section(metrics, result, noise, controlled, {})
        if section is None:
            continue
        how = section["measure"]
        yield ""
        title = f"{result.benchmark} / {result.task}: gain or format? Gain in {how.label}{', points' if how.percent else ''}; "
        yield from text_lines(f"{title}what is left of it against each control")
        rows = {row["policy"]: [_plain(cell) for cell in row["cells"]] for row in section["rows"]}
        yield from text_columns(section["titles"], rows, TEXT_WIDTH)
        for policy, words in section["sentences"]:
            yield from text_lines(f"{policy}: {words}." if policy else f"{words[0].upper()}{words[1:]}.")


def _title(control: str, compared: Any) -> str:
    k = max(int(rows[control]["k"]) for rows in compared if control in rows)
    names = {"prompt": "best prompt", "blank": "no image", "mean_of_n": f"mean of {k}", "sft_on_best": "SFT on best"}
    return names[control]


def _gain_cell(row: Row | None) -> dict[str, str]:
    """A gain over the base in the same condition."""
    if row is None or not finite(row["gain"]):
        return EMPTY
    how = measure(row["metric"])
    star = " *" if verdict(row, row["metric"]) in ("better", "worse") else ""
    return {
        "value": how.difference(row["gain"]) + star,
        "interval": how.difference_interval(row["gain_ci_low"], row["gain_ci_high"]),
        "detail": f"base {how.number(row['base_value'])}{how.unit}",
        "says": "",
    }


def _control_cell(row: Row | None, result: Result, policy: str) -> dict[str, str]:
    """What a control leaves of the gain, what it scores itself, and what that says where there is a gain."""
    if row is None:
        return EMPTY
    how = measure(row["metric"])
    score = f"{how.number(row['control_value'])}{how.unit}"
    star = "" if row["ci_low"] <= 0 <= row["ci_high"] else " *"
    gains = verdict(result.rows[policy].get(result.primary), result.primary) == "better"
    return {
        "value": how.difference(row["difference"]) + star,
        "interval": how.difference_interval(row["ci_low"], row["ci_high"]),
        "detail": {
            "prompt": f"base {score}, {'prompt ' + str(row['k']) if row['k'] else 'own prompt'}",
            "blank": f"gain {how.difference(row['control_value'])} without it",
            "mean_of_n": f"base {score}",
            "sft_on_best": f"it has {score}",
        }[row["control"]],
        "says": SAID[says(row)] if gains else "",
    }


def _plain(cell: Mapping[str, str]) -> str:
    """For the text table: the number, and whether it explains the gain."""
    return f"{cell['value']}{' (' + cell['says'] + ')' if cell['says'] else ''}".replace("\u2212", "-")
