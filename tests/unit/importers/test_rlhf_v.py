"""RLHF-V's pairs, in all forms of their three texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.unit.importers.conftest import Imported, draw, drawn, write_json, write_parquet

TEXTS = {"question": "What is on the table?", "chosen": "A cup.", "rejected": "A cup and a dog."}
PAIR = [{"text": "A cup.", "reward": 1.0}, {"text": "A cup and a dog.", "reward": 0.0}]


def record(**changes: Any) -> dict[str, Any]:
    made = {
        "ds_name": "RLHF-V",
        "text": json.dumps(TEXTS),
        "origin_dataset": "COCO",
        "origin_split": '{"model": "OmniLMM", "type": "question answering"}',
        "idx": 0,
        "image_path": "images/0.jpg",
    }
    return {**made, **changes}


def test_the_parquet_file(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    records = [record(image=drawn(), idx=idx) for idx in (0, 1, 1)]
    rows = imported("rlhf_v", write_parquet(tmp_path / "RLHF-V-Dataset.parquet", records, image=datasets.Image()))
    assert [row["example_id"] for row in rows] == ["0", "1", "1-2"]
    for row in rows:
        assert (row["task"], row["question"], row["target"]) == ("open", TEXTS["question"], "A cup.")
        assert row["source"]["answers_given"] == PAIR
        assert row["source"]["origin_dataset"] == "COCO"
        assert row["image_sizes"] == [[64, 48]]
    assert "RLHF-V-Dataset.parquet all: 3 rows, 5733 published" in capsys.readouterr().out


@pytest.mark.parametrize(
    "form",
    [{"text": json.dumps(list(TEXTS.values()))}, {"text": TEXTS}, {"text": None, **TEXTS}],
    ids=["list", "object", "columns"],
)
def test_other_forms(tmp_path: Path, imported: Imported, form: dict[str, Any]) -> None:
    draw(tmp_path / "images" / "0.jpg")
    (row,) = imported("rlhf_v", write_json(tmp_path / "data.json", [record(**form)]))
    assert row["source"]["answers_given"] == PAIR
    assert row["question"] == TEXTS["question"]


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    draw(tmp_path / "images" / "0.jpg")
    bad = [
        record(text="{"),
        record(text=json.dumps({**TEXTS, "rejected": 3})),
        record(text=json.dumps({"question": "x", "chosen": "y"})),
        record(text=json.dumps({**TEXTS, "rejected": "A cup."})),
        record(image_path=None),
    ]
    message = mistakes("rlhf_v", write_json(tmp_path / "data.json", bad))
    assert "5 of 5 rows cannot be used" in message
    assert "record 1: `text` is '{', expected JSON text with question, chosen, rejected" in message
    assert "record 2: `rejected` is 3, expected text" in message
    assert "record 3: key `rejected` is missing" in message
    assert "record 4: `chosen` and `rejected` are identical, expected different answers" in message
    assert "record 5: key `image` is missing" in message
