"""The report's section on comparisons: its numbers, its HTML and its lines in the result table."""

from pathlib import Path
from typing import Any

import jinja2
import pytest
from perceptune.contracts.tables.agreements import AGREEMENTS
from perceptune.contracts.tables.comparisons import COMPARISONS
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.table import Table
from perceptune.report import write
from perceptune.report.sections.comparisons import agreement_rows, comparison_lines, comparison_sections

PAGE = '{% from "macros.html.jinja" import table with context %}{% include "comparisons.html.jinja" %}'


def table(path: Path, kind: Table, rows: list[dict[str, Any]]) -> Path:
    write_table(path, kind, [{**dict.fromkeys(kind.columns), **row} for row in rows], {})
    return path


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """24 wins, eight ties and eight losses of 40 verdicts; of a share of nothing, no value."""
    shared = {
        "comparison": "general", "source": "bench", "one": "perpo", "other": "<dpo>", "part": "all", "n": 41, "n_failed": 1,
        "judge": "gpt: gpt-4o", "of": 40,
    }  # fmt: skip
    rows = [
        {**shared, "metric": "win_rate", "count": 28, "value": 0.7, "ci_low": 0.5, "ci_high": 0.9},
        {**shared, "metric": "win", "count": 24, "value": 0.6, "ci_low": 0.4, "ci_high": 0.8},
        {**shared, "metric": "dropped_of_invalid", "count": 0, "of": 0, "reason": "no verdict that this share is of"},
    ]
    return table(tmp_path / "judged.parquet", COMPARISONS, rows)


@pytest.fixture
def agreed(tmp_path: Path) -> Path:
    shared = {
        "agreement": "people", "source": "errors", "part": "all", "judge": "gpt", "other": "people", "n": 50, "n_unread": 2, "n_unlabelled": 1,
    }  # fmt: skip
    counts = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    rows = [
        {**shared, "metric": "agreement", "value": 0.7, "ci_low": 0.56, "ci_high": 0.82},
        {**shared, "metric": "kappa", "value": 0.4, "ci_low": 0.16, "ci_high": 0.63},
        *({**shared, "metric": "count", "label": a, "other_label": b, "value": n} for (a, b), n in counts.items()),
    ]
    return table(tmp_path / "agreed.parquet", AGREEMENTS, rows)


def test_the_page_shows_win_rates_counts_and_unreadable_verdicts(judged: Path, agreed: Path) -> None:
    sections, rows = comparison_sections({"general": judged}), agreement_rows({"people": agreed})
    loader = jinja2.FileSystemLoader(Path(write.__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    html = page.from_string(PAGE).render(comparisons=sections, agreements=rows, labelled=[])
    assert "perpo against &lt;dpo&gt;" in html
    assert "win rate, ties count half, %" in html
    for text in (
        "70.0",
        "[50.0, 90.0]",
        "24 of 40",
        "n/a",
        "judged by gpt: gpt-4o",
        "0.400",
        "[0.160, 0.630]",
        "gpt and people",
    ):
        assert text in html, text
    (counts,) = [row["counts"] for row in rows]
    assert counts == [[15, 10], [5, 20]]  # no, yes


def test_a_handful_of_answers_has_no_interval(judged: Path, agreed: Path, tmp_path: Path) -> None:
    for path, kind in ((judged, COMPARISONS), (agreed, AGREEMENTS)):
        rows = [{**row, "n": 29} for row in read_table(path, kind).to_pylist()]
        write_table(tmp_path / f"few-{path.name}", kind, rows, {})
    sections = comparison_sections({"general": tmp_path / "few-judged.parquet"})
    lines = comparison_lines(sections, agreement_rows({"people": tmp_path / "few-agreed.parquet"}))
    text = " ".join(" ".join(lines).split())
    assert "win rate 70.0 %, 29 outcomes" in text
    assert "agreement 70.0 %, kappa 0.400, n = 29" in text


def test_the_result_table_has_a_line_each(judged: Path, agreed: Path) -> None:
    lines = comparison_lines(comparison_sections({"general": judged}), agreement_rows({"people": agreed}))
    text = " ".join(" ".join(lines).split())
    assert "general (perpo against <dpo> on bench): win rate 70.0 % [50.0, 90.0], 41 outcomes, 1 unreadable" in text
    assert (
        "people (gpt and people on errors, all): agreement 70.0 [56.0, 82.0] %, kappa 0.400 [0.160, 0.630], n = 50"
        in text
    )
    assert all(len(line) <= 100 for line in lines)
