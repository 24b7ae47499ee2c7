"""The report: text of models and users is escaped, and a broken table gives one line and keeps the
last page."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, write_table
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.table import Table
from perceptune.report import write

from tests import report_pages
from tests.faults.test_bad_answers import ANSWERS
from tests.report_pages import DEMO, Page, attributes, written

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """The arguments of a report that already exists."""
    with patch.object(write, "run", wraps=write.run) as run:
        written(tmp_path, DEMO)
    return dict(run.call_args.kwargs)


def with_columns(path: Path, kind: Table, **columns: Any) -> None:
    write_table(path, kind, pl.read_parquet(path).with_columns(**columns), read_lineage(path))


def test_no_answer_leaves_its_place_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_pages, "HOSTILE", list(ANSWERS.values()))
    page = Page(written(tmp_path, DEMO, hostile=True, gallery=40))
    assert page.source.count('<article class="card">') == 40
    assert not HIDDEN.search(page.source)
    assert ANSWERS["HTML"] in page.text
    assert "<script" not in page.source
    assert max(map(len, page.words)) < 200_000  # the style sheet
    assert len(page.source) < 600_000
    assert not HIDDEN.search((tmp_path / "result.txt").read_text())


@pytest.mark.parametrize(
    "text", ['"><script>alert(1)</script>', "\x1b[2J\x00", "\u202egnp.exe", "q" * 100_000, "<image>"]
)
def test_questions_ground_truths_and_reasons_stay_text(made: dict[str, Any], text: str) -> None:
    with_columns(made["examples"]["shapes"], EXAMPLES, question=pl.lit(text), target=pl.lit(text))
    for tables in made["predictions"].values():
        with_columns(tables["shapes-test"], REWARDS, target=pl.lit(text), reason=pl.lit(text))
    write.run(**made)
    page = Page(made["report"])
    assert not HIDDEN.search(page.source)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert not [name for _, name, _ in attributes(page) if name.startswith("on")]
    assert len(page.source) < 600_000


BROKEN = {"empty": b"", "cut": b"PAR1" + bytes(50), "foreign": b"<html>", "list": b"[1]"}


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("name", ["metrics", "training", "statistics", "predictions", "examples"])
def test_a_broken_input_is_one_line_and_the_last_page_stays(made: dict[str, Any], name: str, content: str) -> None:
    path = made[name]
    while not isinstance(path, Path):
        path = next(iter(path.values()))
    path.write_bytes(BROKEN[content])
    before = made["report"].read_bytes()
    with pytest.raises(UserError, match=r"not readable as Parquet|expected the statistics of a selection") as caught:
        write.run(**made)
    assert f"`{path}`" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2  # and the hint
    assert made["report"].read_bytes() == before
    assert not list(path.parent.glob(".*"))


def test_an_image_that_became_a_bomb_is_reported_on_its_card(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perceptune.core.data.images.MAX_PIXELS", 99)
    write.run(**made)
    page = Page(made["report"])
    assert "112 x 112 pixels, expected at most 99" in page.text
    assert page.source.count('<article class="card">') == 12
