"""Warnings at the top of the report page and of the result table."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.leakage import LEAKAGE
from perceptune.report import write
from perceptune.report.sections import warnings

from tests.report_pages import DEMO, MADE, Page, cells, metric_row, written


def test_warnings_stand_above_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(written(tmp_path / "usual", DEMO))
    assert "Warnings" not in page.text
    monkeypatch.setattr(warnings, "FEW_STEPS", 10_000)
    page = Page(written(tmp_path / "short", DEMO))
    said = "perpo was trained for only "
    assert page.text.index("Warnings") < page.text.index(said) < page.text.index("600 questions")
    text = (tmp_path / "short/result.txt").read_text()
    assert text.startswith("warning: ") and said in text


def test_a_handful_of_questions_has_no_intervals_on_the_page(tmp_path: Path) -> None:
    rows = [metric_row(p, "accuracy_iou_0.5", 0.5, n=4, gain=gain) for p, gain in (("tiny", None), ("dpo", 0.25))]
    page = Page(written(tmp_path, {"tiny": None, "dpo": 0.25}, metrics=rows))
    assert cells(page, "summary", "shapes-test").endswith("50.0 base 50.0 +25.0 too few questions to tell")
    assert cells(page, "result", "dpo") == "dpo 50.0 +25.0 0"
    assert "too few questions to tell: dpo (+25.0 points)" in page.text
    assert "shapes-test / grounding: only 4 questions, too few to tell policies apart" in page.text
    assert "[" not in (tmp_path / "result.txt").read_text().partition("\nBrackets")[0]


def leaking(folder: Path) -> dict[str, Path]:
    """A table of training data that share images and questions with a benchmark."""
    counts = {
        "images": 600,
        "same_images": 12,
        "similar_images": 3,
        "questions": 1600,
        "same_questions": 5,
        "similar_questions": 2,
    }
    one = {"kind": "same image", "training_id": "t", "benchmark_id": "b"}
    folder.mkdir(exist_ok=True)
    write_table(folder / "leak.parquet", LEAKAGE, [{"benchmark": "shapes-test", **counts, "examples": [one]}], MADE)
    return {"shapes/n20": folder / "leak.parquet"}


SHARED = "training data shapes/n20 share 12 of 600 images, near duplicates of 3 more, and 7 of 1,600 questions with benchmark shapes-test"


@pytest.mark.parametrize("mode", ["warn", "allow"])
def test_leakage_is_counted_and_warned_about(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "run", partial(write.run, leakage=leaking(tmp_path), leakage_mode=mode))
    page = Page(written(tmp_path, DEMO))
    text = " ".join((tmp_path / "result.txt").read_text().split())
    assert (SHARED in page.text, SHARED in text) == (mode == "warn", mode == "warn")
    assert "shapes/n20 shapes-test 600 12 3 1,600 5 2" in page.text
    assert "data" in page.ids


def test_leakage_can_refuse_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "run", partial(write.run, leakage=leaking(tmp_path), leakage_mode="refuse"))
    with pytest.raises(UserError, match="share 12 of 600 images"):
        written(tmp_path, DEMO)
    assert not (tmp_path / "report.html").exists()
