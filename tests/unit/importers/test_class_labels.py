"""Class labels of Hugging Face datasets: their names count, not their numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, List, Sequence, Value
from perceptune.core.data.class_labels import labelled_features, with_names

from tests.unit.importers.conftest import Imported, drawn

ANIMALS = ClassLabel(names=["cat", "dog"])
FEATURES = Features(
    image=Image(),
    question=Value("string"),
    answer=ANIMALS,
    task=ClassLabel(names=["open", "existence"]),
    split=ClassLabel(names=["train", "test"]),
    breeds=List(ANIMALS),
    parts=List({"of": ANIMALS, "number": Value("int64")}),
    tails=Sequence({"of": ANIMALS}),
    about={"kind": ANIMALS, "age": Value("int64")},
)
COLUMNS: dict[str, list[Any]] = {
    "image": [drawn(shade=n) for n in range(3)],
    "question": ["which?", "which?", "is it one?"],
    "answer": ["cat", "dog", -1],
    "task": ["open", 0, "open"],
    "split": ["train", "test", "test"],
    "breeds": [["dog", "cat"], [], [1]],
    "parts": [[{"of": "dog", "number": 1}], [], []],
    "tails": [{"of": ["dog", "cat"]}, {"of": []}, {"of": []}],
    "about": [{"kind": "dog", "age": 1}] * 3,
}


def stored(folder: Path, kind: str, columns: dict[str, list[Any]] = COLUMNS, features: Features = FEATURES) -> Path:
    data = datasets.Dataset.from_dict(columns, features=features)
    if kind == "hf":
        data.save_to_disk(str(folder / "data"))
        return folder / "data"
    data.to_parquet(str(folder / "data.parquet"))
    return folder / "data.parquet"


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_labels_are_read_as_their_names_in_every_column(tmp_path: Path, kind: str, imported: Imported) -> None:
    rows = imported(kind, stored(tmp_path, kind))
    assert [row["target"] for row in rows] == ["cat", "dog", None]  # -1 is a missing label
    assert [row["task"] for row in rows] == ["open"] * 3
    assert [row["split"] for row in rows] == ["train", "test", "test"]
    assert rows[0]["source"] == {
        "breeds": ["dog", "cat"],
        "parts": [{"of": "dog", "number": 1}],
        "tails": {"of": ["dog", "cat"]},
        "about": {"kind": "dog", "age": 1},
    }


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_yes_and_no_as_labels(tmp_path: Path, kind: str, imported: Imported) -> None:
    features = Features(image=Image(), question=Value("string"), answer=ClassLabel(names=["no", "yes"]))
    columns = {"image": [drawn()] * 2, "question": ["is it?"] * 2, "answer": [1, 0]}
    rows = imported(kind, stored(tmp_path, kind, columns, features), task="existence")
    assert [row["target"] for row in rows] == ["yes", "no"]


def test_another_trainers_format_with_labels(tmp_path: Path, imported: Imported) -> None:
    features = Features(image=Image(), problem=Value("string"), answer=ANIMALS)
    columns = {"image": [drawn()], "problem": ["which?"], "answer": ["dog"]}
    assert imported("easyr1", stored(tmp_path, "parquet", columns, features))[0]["target"] == "dog"


def test_a_number_without_a_name_is_refused_with_its_row(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    path = stored(tmp_path, "parquet")
    table = pq.read_table(path)
    position = table.schema.get_field_index("answer")
    changed = table.set_column(position, table.schema.field("answer"), pa.array([0, 7, 1], pa.int64()))
    pq.write_table(changed, path)
    assert "data.parquet, row 2: column `answer`: class label 7 has no name, expected 0 to 1" in mistakes(
        "parquet", path
    )


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": [1]}}'])
def test_odd_metadata_changes_nothing(tmp_path: Path, metadata: bytes, imported: Imported) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    drawn().save(tmp_path / "0.png")
    rows = {"image": ["0.png"], "question": ["q"], "answer": [1], "task": ["open"]}
    pq.write_table(pa.table(rows).replace_schema_metadata({b"huggingface": metadata}), tmp_path / "data.parquet")
    assert imported("parquet", tmp_path / "data.parquet")[0]["target"] == "1"


def test_metadata_of_older_versions(tmp_path: Path) -> None:
    """`Sequence` of a struct, stored as a struct of lists, and a list written as a list."""
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    columns = labelled_features(
        {"a": {"_type": "Sequence", "feature": {"of": label}}, "b": [label], "c": [{"of": label}]}
    )
    row = {"a": {"of": [0, 1], "n": [3]}, "b": [1], "c": [{"of": 1}]}
    assert with_names(row, columns) == {"a": {"of": ["cat", "dog"], "n": [3]}, "b": ["dog"], "c": [{"of": "dog"}]}
