"""IPS of dataset preferences: from stored log-probs to the report, and the plan of its inputs."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.terms import TERMS
from perceptune.planning import policies as planning
from perceptune.planning.jobs.evaluation import given_logprobs
from perceptune.report import write
from perceptune.report.read import implicit_preferences

from tests.report_pages import DEMO, MADE, Page, cells, written

LISTS: list[list[list[float]]] = [
    [[-30.0, -31.2], [-1.0], [-29.0, -29.0]],  # -61.2 against -58: the answer in between does not count
    [[-1.0, -2.0, -0.5], [-10.0]],
    [[-4.0], [-1.0, -1.0]],
]
"""Log-probs of every token; the best answer comes first."""


def stored(folder: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"group_id": str(i), "term": "reference", "view": "original", "logprobs": answers}
        for i, answers in enumerate(LISTS)
    ]
    folder.mkdir(exist_ok=True)
    write_table(folder / "terms.parquet", TERMS, rows, MADE)
    return folder / "terms.parquet"


def test_ips_is_the_difference_of_sums_of_best_and_worst(tmp_path: Path) -> None:
    assert implicit_preferences(stored(tmp_path)) == pytest.approx([-3.2, 6.5, -2.0], abs=1e-5)


def test_the_report_has_the_table_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean, sample standard deviation, extremes and quartiles of -3.2, 6.5 and -2 by hand."""
    monkeypatch.setattr(write, "run", partial(write.run, given={"tiny/rlhf-v/taken": stored(tmp_path)}))
    page = Page(written(tmp_path, DEMO))
    row = cells(page, "pairs", "tiny/rlhf-v/taken (66.7 % below 0)").replace("\u2212", "-")
    assert row == "tiny/rlhf-v/taken (66.7 % below 0) 3 0.433 5.288 -3.200 -2.600 -2.000 2.250 6.500"
    assert "IPS of dataset preferences" in page.text
    assert "A pair consists of two answers" not in page.text


def test_log_probs_are_read_where_the_training_needs_them() -> None:
    root = Path(__file__).parents[2]
    raw = yaml.safe_load((root / "config/papers/p2dpo.yaml").read_text())
    found = given_logprobs(planning.load(raw))
    assert list(found) == [f"{model}/rlhf-v/rlhf-v" for model in ("llava-1.5-7b", "qwen2.5-vl-7b", "qwen2.5-vl-3b")]
    assert all(table.endswith(".parquet") and "reference@original" in table for table in found.values())
    raw["trainings"]["dpo"] = {"method": "simpo"}  # without a reference
    assert given_logprobs(planning.load(raw)) == {}
