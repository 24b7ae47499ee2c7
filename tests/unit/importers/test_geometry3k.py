"""Geometry3K with and without its newer columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.unit.importers.conftest import Imported, drawn, write_parquet

IMAGES = datasets.Sequence(datasets.Image())


def problem(**more: Any) -> dict[str, Any]:
    return {"images": [drawn()], "problem": "<image>Find $x$.", "answer": "12", **more}


def test_files_are_splits(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    newer = {"choices": ["6", "12"], "ground_truth": "B"}
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [problem(id=4, **newer), problem(id=5, **newer)], images=IMAGES)  # fmt: skip
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [problem(id=9, **newer)], images=IMAGES)
    rows = imported("geometry3k", tmp_path / "data")
    assert [(row["example_id"], row["split"]) for row in rows] == [("9", "test"), ("4", "train"), ("5", "train")]
    assert {(row["question"], row["target"], row["task"]) for row in rows} == {("Find $x$.", "12", "open")}
    assert rows[0]["source"] == newer
    printed = capsys.readouterr().out
    assert "data train: 2 rows, 2101 published" in printed
    assert "data test: 1 rows, 601 published" in printed


def test_an_older_file(tmp_path: Path, imported: Imported) -> None:
    file = write_parquet(tmp_path / "validation-00000-of-00001.parquet", [problem()], images=IMAGES)
    (row,) = imported("geometry3k", file)
    assert (row["example_id"], row["split"], row["source"]) == ("row-1", "validation", {})


def test_a_saved_data_set(tmp_path: Path, imported: Imported) -> None:
    datasets.Dataset.from_list([problem()]).cast_column("images", IMAGES).save_to_disk(str(tmp_path / "test"))
    (row,) = imported("geometry3k", tmp_path / "test", split="test")
    assert (row["question"], row["split"]) == ("Find $x$.", "test")


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    bad = [{**problem(), "problem": None}, {**problem(), "answer": None}, {**problem(), "images": []}]
    message = mistakes("geometry3k", write_parquet(tmp_path / "train-00000-of-00001.parquet", bad, images=IMAGES))
    assert "3 of 3 rows cannot be used" in message
    assert "row 1: key `problem` is missing; found keys images, answer" in message
    assert "row 2: key `answer` is missing" in message
    assert "row 3: `images` is [], expected a list of paths" in message
