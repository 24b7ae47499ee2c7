"""The results as a plain-text table."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl

from perceptune.report.results import (
    FEW_QUESTIONS,
    FIXED,
    Measure,
    Result,
    Row,
    measure,
    overall_sentence,
    reliable,
    results,
    sampled,
    verdict,
    verdict_sentences,
    without_image,
)

Cells = Mapping[str, tuple[str, str]]
"""A column of the table: policy to (number, interval or other suffix)."""
TEXT_WIDTH = 100


def results_as_text(metrics: pl.DataFrame, more: Sequence[str] = (), views: Mapping[str, str] | None = None) -> str:
    """The results as plain text, at most 100 columns wide.

    Each result has one line per policy and a verdict in words; the lines `more` follow. `views` as in
    `results.results`. Intervals of fewer than `FEW_QUESTIONS` questions are left out, see
    `results.reliable`.
    """
    metrics = reliable(metrics)
    found = results(metrics, views)
    parts = ["\n".join(_text_of(metrics, result)) for result in found]
    if not parts:
        return "no results: no benchmark was evaluated\n"
    notes = [
        "Brackets: 95 % bootstrap intervals. Gain: paired difference from the base model on the same questions; "
        "`*` marks an interval that excludes 0. Unparsed: answers that could not be parsed; they score 0 unless the "
        "benchmark defines otherwise."
    ]
    if any(result.questions < FEW_QUESTIONS for result in found):
        notes.append(f"With fewer than {FEW_QUESTIONS} questions, no intervals are shown.")
    if any(sampled(metrics, result) for result in found):
        notes.append("acc@k, mean@k: mean over all k sampled answers to each question, in the metric's unit.")
    if any(without_image(metrics, result) for result in found):
        notes.append("No image: greedy answers to the same questions with a blank image.")
    overall = overall_sentence(metrics, found)
    parts += ["\n".join(text_lines(overall[0].upper() + overall[1:] + "."))] if overall else []
    parts += ["\n".join(more).strip("\n")] if more else []
    return "\n\n".join([*parts, "\n".join(textwrap.wrap(" ".join(notes), TEXT_WIDTH))]) + "\n"


def _text_of(metrics: pl.DataFrame, result: Result) -> Iterator[str]:
    counts = {int(c[result.primary]["n"]) for c in result.rows.values() if result.primary in c}
    n = f"n = {result.questions}" if len(counts) <= 1 else f"n = {min(counts)} to {max(counts)}"
    shown = f"{result.split} split, greedy, {result.view} image{result.judge}"
    plural = "" if result.questions == 1 else "s"
    yield from text_lines(f"{result.benchmark} / {result.task}: {n} question{plural} ({shown})")
    yield from _aligned(list(result.rows), _fitting(metrics, result))
    for sentence in verdict_sentences(result):
        yield from text_lines(sentence[0].upper() + sentence[1:] + ".")


def text_lines(text: str) -> list[str]:
    """Text wrapped at `TEXT_WIDTH`, with ASCII minus signs; intervals are not split."""
    whole = re.sub(r"\[[^\]]*\]|\d points", lambda found: found[0].replace(" ", FIXED), text.replace("\u2212", "-"))
    lines = textwrap.wrap(whole, TEXT_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(FIXED, " ") for line in lines]


def _fitting(metrics: pl.DataFrame, result: Result) -> dict[str, Cells]:
    """The columns of the text table: as many columns and intervals as fit next to the names."""
    how = measure(result.primary)
    first = {how.heading: _column({p: c.get(result.primary) for p, c in result.rows.items()}, how)}
    first["gain, points" if how.percent else "gain"] = {p: _text_gain(result, p) for p in result.rows}
    last = {"unparsed": {p: (str(result.failed(p)), "") for p in result.rows}}
    second: dict[str, Cells] = {}
    if len(result.metrics) > 1:
        other = measure(result.metrics[1])
        second[other.heading] = _column({p: c.get(result.metrics[1]) for p, c in result.rows.items()}, other)
    drawn, blank = sampled(metrics, result), without_image(metrics, result)
    of_drawn, of_blank = {}, {}
    if drawn:
        unit = measure(drawn.metric)
        of_drawn = {unit.headed(drawn.label): _column({p: drawn.rows.get(p) for p in result.rows}, unit)}
    if blank:
        unseen = {p: blank[p][1] if p in blank else None for p in result.rows}
        of_blank = {how.headed("no image"): _column(unseen, how)}
    choices = [first | of_drawn | of_blank | second | last]
    if drawn or blank:
        choices += [
            first | of_drawn | of_blank | last,
            first | of_drawn | _bare(of_blank) | last,
            first | _bare(of_drawn) | _bare(of_blank) | last,
        ]
    for room in (max(map(len, result.rows)), len("policy")):  # a longer name gets a line of its own
        for columns in choices:
            if room + _width(result.rows, columns) <= TEXT_WIDTH:
                return columns
    return choices[-1]


def _bare(columns: Mapping[str, Cells]) -> dict[str, Cells]:
    """The same columns without intervals."""
    return {header: {p: (number, "") for p, (number, _) in cells.items()} for header, cells in columns.items()}


def _column(rows: Mapping[str, Row | None], how: Measure) -> Cells:
    return {policy: _value_and_interval(row, how) for policy, row in rows.items()}


def _width(policies: Iterable[str], columns: Mapping[str, Cells]) -> int:
    """Width of all columns after the names, gaps included."""
    return sum(2 + max(map(len, lines)) for lines in _lines(policies, columns))


def _lines(policies: Iterable[str], columns: Mapping[str, Cells]) -> list[list[str]]:
    """The lines of each column, header first; numbers are right-aligned, intervals left-aligned."""
    found = []
    for header, cells in columns.items():
        digits = max(len(cells[p][0]) for p in policies)
        found.append([header, *(f"{cells[p][0].rjust(digits)} {cells[p][1]}".rstrip() for p in policies)])
    return found


def _aligned(policies: Sequence[str], columns: Mapping[str, Cells]) -> Iterator[str]:
    """The lines of the table; a name that is too long gets a line of its own."""
    lines = _lines(policies, columns)
    widths = [max(map(len, texts)) for texts in lines]
    columns_width = _width(policies, columns)
    name_width = min(max(map(len, ["policy", *policies])), TEXT_WIDTH - columns_width)
    for i, name in enumerate(["policy", *policies]):
        if len(name) > name_width:
            yield from textwrap.wrap(name, TEXT_WIDTH, break_on_hyphens=False)
        shown = name if len(name) <= name_width else ""
        texts = (texts[i].ljust(width) for texts, width in zip(lines, widths, strict=True))
        yield "  ".join([shown.ljust(name_width), *texts]).rstrip()
        if i == 0:
            yield "-" * (name_width + columns_width)


def _text_gain(result: Result, policy: str) -> tuple[str, str]:
    if not result.trained(policy):
        return "base", ""
    how, row = measure(result.primary), result.rows[policy].get(result.primary)
    if row is None:
        return "n/a", ""
    star = " *" if verdict(row, result.primary) in ("better", "worse") else ""
    interval = how.difference_interval(row["gain_ci_low"], row["gain_ci_high"])
    return _ascii(how.difference(row["gain"])), _ascii(interval) + star


def _value_and_interval(row: Row | None, how: Measure) -> tuple[str, str]:
    if row is None:
        return "n/a", ""
    return _ascii(how.number(row["value"])), _ascii(how.interval(row["ci_low"], row["ci_high"]))


def _ascii(shown: str) -> str:
    return shown.replace("\u2212", "-")
