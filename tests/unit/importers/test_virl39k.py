"""ViRL39K and PAPO's copy."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from perceptune.core.importers.importer import without_image_marks

from tests.unit.importers.conftest import Imported, draw, drawn, write_parquet


def test_the_original(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1.jpg", "2.jpg"):
        draw(tmp_path / "images" / name)
    records = [
        {"question": "<image>\nWhat is $x$?", "answer": r"\boxed{\frac{1}{2}}", "image": ["images/1.jpg"], "category": "(GradeSchool) Geometric", "source": "Processed", "qid": "Processed-1", "PassRate_32BTrained": 0.5, "PassRate_7BBase": 0.25},
        {"question": "In <image> and <image>, which?", "answer": r"\boxed{B}", "image": ["images/1.jpg", "images/2.jpg"], "category": "Tables", "source": "MMK12", "qid": "MMK12-7", "PassRate_32BTrained": -1.0, "PassRate_7BBase": 1.0},
    ]  # fmt: skip
    rows = imported("virl39k", write_parquet(tmp_path / "39Krelease.parquet", records))
    assert [(row["example_id"], row["question"], row["target"]) for row in rows] == [
        ("Processed-1", "What is $x$?", r"\frac{1}{2}"),
        ("MMK12-7", "In and , which?", "B"),
    ]
    assert [len(row["images"]) for row in rows] == [1, 2]
    assert rows[0]["source"]["PassRate_32BTrained"] == 0.5
    assert rows[0]["source"]["category"] == "(GradeSchool) Geometric"
    assert "39Krelease.parquet all: 2 rows, 38870 published" in capsys.readouterr().out


def test_papos_copy(tmp_path: Path, imported: Imported) -> None:
    record = {
        "problem": "<image>What is $x$?",
        "answer": "12",
        "images": [drawn()],
        "category": "a",
        "qid": "q-1",
        "id": 3,
    }
    file = write_parquet(
        tmp_path / "data" / "train-00000-of-00001.parquet", [record], images=datasets.Sequence(datasets.Image())
    )
    (row,) = imported("virl39k", file.parent)
    assert (row["example_id"], row["question"], row["target"], row["task"]) == ("q-1", "What is $x$?", "12", "open")
    assert row["image_sizes"] == [[64, 48]]
    assert row["source"] == {"category": "a"}


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    good = {"question": "What?", "answer": "B", "image": ["1.jpg"], "qid": "1"}
    draw(tmp_path / "1.jpg")
    bad = [{**good, "answer": None}, {**good, "image": []}, {**good, "question": None}, {**good, "qid": None}]
    message = mistakes("virl39k", write_parquet(tmp_path / "data.parquet", bad))
    assert "4 of 4 rows cannot be used" in message
    assert "row 1: key `answer` is missing; found keys question, image, qid" in message
    assert "row 2: `images` is [], expected a list of paths" in message
    assert "row 3: key `question` is missing" in message
    assert "row 4: key `qid` is missing" in message


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<image>Find x.", "Find x."),
        ("Find x.\n<image>", "Find x."),
        ("<image><image>\nA\nB", "A\nB"),
        (" kept  as it is ", " kept  as it is "),
    ],
)
def test_marks(text: str, plain: str) -> None:
    assert without_image_marks(text) == plain
