"""The report's section on controls; `report.sections.verdicts` has the rule and the sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from perceptune.report.result_text import TEXT_WIDTH, text_lines
from perceptune.report.results import FEW_QUESTIONS, Result, Row, measure, verdict
from perceptune.report.sections.attention import noise_rows, text_columns
from perceptune.report.sections.verdicts import CONTROLS, Controlled, best_of, control_rows, explanation, sentences
from perceptune.report.svg import finite

EMPTY = {"value": "n/a", "interval": "", "detail": "", "tag": ""}
TAGS = {"explained": "explained", "partly": "partly explained", "undecided": "undecided", "not": ""}
"""Explanation to the tag of a number; a control that does not explain the gain has none."""


def control_section(
    metrics: pl.DataFrame,
    result: Result,
    noise: Mapping[str, float],
    controlled: Controlled,
    styles: Mapping[str, str],
) -> dict[str, Any] | None:
    """Table and sentences of one benchmark and task; None if no policy has controls, or with fewer than
    `FEW_QUESTIONS` questions."""
    compared = {p: control_rows(controlled, result, p) for p in result.rows if p in controlled.policies}
    present = [control for control in CONTROLS if any(control in rows for rows in compared.values())]
    if not present or result.questions < FEW_QUESTIONS:
        return None
    levels, noisy = noise_rows(metrics, result, noise)
    drawn = best_of(metrics, result)
    titles = [_title(control, compared.values()) for control in present]
    titles += [f"best of {max(int(row['k']) for row in drawn.values())}"] if drawn else []
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
                    *(_control_cell(rows.get(control), result, policy) for control in present),
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
    """The section as plain text, at most 100 columns wide; empty without controls."""
    for result in found:
        section = control_section(metrics, result, noise, controlled, {})
        if section is None:
            continue
        how = section["measure"]
        yield ""
        points = ", points" if how.percent else ""
        title = f"{result.benchmark} / {result.task}, controls: gain in {how.label}{points}"
        yield from text_lines(f"{title}, and what remains of it after each control")
        rows = {row["policy"]: [_plain(cell) for cell in row["cells"]] for row in section["rows"]}
        yield from text_columns(section["titles"], rows, TEXT_WIDTH)
        for policy, words in section["sentences"]:
            yield from text_lines(f"{policy}: {words}." if policy else f"{words[0].upper()}{words[1:]}.")


def _title(control: str, compared: Any) -> str:
    k = max(int(rows[control]["k"]) for rows in compared if control in rows)
    names = {"prompt": "best prompt", "blank": "no image", "mean_of_n": f"mean of {k}", "sft_on_best": "SFT on best"}
    return names[control]


def _gain_cell(row: Row | None) -> dict[str, str]:
    """The gain over the base under the same condition."""
    if row is None or not finite(row["gain"]):
        return EMPTY
    how = measure(row["metric"])
    star = " *" if verdict(row, row["metric"]) in ("better", "worse") else ""
    return {
        "value": how.difference(row["gain"]) + star,
        "interval": how.difference_interval(row["gain_ci_low"], row["gain_ci_high"]),
        "detail": f"base {how.number(row['base_value'])}{how.unit}",
        "tag": "",
    }


def _control_cell(row: Row | None, result: Result, policy: str) -> dict[str, str]:
    """What remains of the gain after a control, the control's score, and the tag of a gain."""
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
            "blank": f"gain {how.difference(row['control_value'])} without the image",
            "mean_of_n": f"base {score}",
            "sft_on_best": f"SFT {score}",
        }[row["control"]],
        "tag": TAGS[explanation(row)] if gains else "",
    }


def _plain(cell: Mapping[str, str]) -> str:
    """For the text table: the number and the tag."""
    return f"{cell['value']}{' (' + cell['tag'] + ')' if cell['tag'] else ''}".replace("\u2212", "-")
