"""Folders of Parquet files: the split and file of each row, and missing files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.tables.io import read_lineage
from perceptune.core.importers.importer import missing_shards, split_of

from tests.unit.importers.conftest import Imported, draw, encoded

IMAGE = {"bytes": encoded(), "path": None}
RECORDS: dict[str, dict[str, Any]] = {
    "easyr1": {"problem": "<image>Find x.", "answer": "3", "images": [IMAGE]},
    "geometry3k": {"problem": "<image>Find x.", "answer": "3", "images": [IMAGE]},
    "llama_factory": {"instruction": "<image>What?", "chosen": "a", "rejected": "b", "images": [IMAGE]},
    "ms_swift": {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a"}], "rejected_response": "b", "images": [IMAGE]},
    "parquet": {"question": "What?", "task": "open", "image": IMAGE},
    "perpo": {"image_id": 1, "image_path": "1.png", "question": "Read.", "answer": "a", "answers_gen": ["a"], "iou_scores": [1.0]},
    "rlhf_v": {"question": "What?", "chosen": "a", "rejected": "b", "image": IMAGE},
    "trl": {"prompt": "What?", "chosen": "a", "rejected": "b", "image": IMAGE},
    "verl": {"prompt": [{"role": "user", "content": "What?"}], "images": [IMAGE], "reward_model": {"ground_truth": "3"}},
    "virl39k": {"question": "<image>What?", "answer": "3", "image": [IMAGE], "qid": "1"},
}  # fmt: skip


def written(folder: Path, **files: list[dict[str, Any]]) -> Path:
    """A folder with one Parquet file per name, with `-` for `_`."""
    folder.mkdir()
    for name, rows in files.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name.replace('_', '-')}.parquet")
    return folder


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("testA-00000-of-00001-0123456789abcdef.parquet", "testA"),
        ("data-00000-of-00002.parquet", None),
        ("test.parquet", "test"),
        ("Test.parquet", "Test"),
        ("VAL-00000-of-00001.parquet", "VAL"),
        ("valid.parquet", "valid"),
        ("validation.parquet", "validation"),
        ("tests.parquet", None),
        ("RLAIF-V-Dataset_000.parquet", None),
    ],
)
def test_what_a_name_says(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("kind", sorted(RECORDS))
@pytest.mark.parametrize("names", [("test_00000_of_00001", "train_00000_of_00001"), ("test", "train")])
def test_rows_of_a_test_file_are_none_of_train(kind: str, names: tuple[str, str], tmp_path: Path, imported: Imported) -> None:  # fmt: skip
    folder = written(tmp_path / "data", **{name: [RECORDS[kind]] for name in names})
    draw(folder / "1.png")
    rows = imported(kind, folder)
    assert [row["split"] for row in rows] == ["test", "train"]
    assert len({row["example_id"] for row in rows}) == 2


def test_the_split_of_a_row_overrides_its_file_name(tmp_path: Path, imported: Imported) -> None:
    verl, own = RECORDS["verl"], RECORDS["parquet"]
    folder = written(tmp_path / "verl", train=[{**verl, "extra_info": {"split": "test"}}], validation=[verl])
    assert [row["split"] for row in imported("verl", folder)] == ["test", "validation"]
    folder = written(tmp_path / "own", test=[{**own, "split": "mine"}, {**own, "split": None}])
    assert [row["split"] for row in imported("parquet", folder)] == ["mine", "test"]


def test_the_split_of_the_block_overrides_that_of_a_file_name(tmp_path: Path, imported: Imported) -> None:
    folder = written(tmp_path / "data", test=[RECORDS["trl"]], data_00000_of_00001=[RECORDS["trl"]])
    assert imported("trl", folder / "test.parquet", split="mine")[0]["split"] == "mine"
    assert imported("trl", folder / "test.parquet")[0]["split"] == "test"
    assert imported("trl", folder / "data-00000-of-00001.parquet")[0]["split"] == "train"
    assert [row["split"] for row in imported("trl", folder, split="mine")] == ["mine", "mine"]
    assert [row["split"] for row in imported("trl", folder)] == ["train", "test"]


def test_a_row_is_found_by_its_file(tmp_path: Path, imported: Imported, mistakes: Callable[..., str]) -> None:
    good = RECORDS["rlhf_v"]
    folder = written(tmp_path / "data", V_000=[good, good], V_001=[good, {**good, "chosen": "b"}])
    assert "data, V-001.parquet row 2: `chosen` and `rejected` are identical, expected different answers" in mistakes(
        "rlhf_v", folder
    )
    imported("rlhf_v", folder, max_failed_rows=1)
    inputs = read_lineage(tmp_path / "examples.parquet")["inputs"]
    assert sorted(Path(one["path"]).name for one in inputs.values()) == ["V-000.parquet", "V-001.parquet"]


def test_a_benchmark_is_found_by_its_file_too(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    folder = written(tmp_path / "data", a=[{"id": "1"}], b=[{"name": "2"}])
    assert "data, b.parquet row 1: key `id` is missing; found keys name" in mistakes("mathvision", folder)


def test_missing_files_are_named() -> None:
    there = ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet", "test-00000-of-00001.parquet", "x.parquet"]
    assert missing_shards(there) == ["train-00001-of-00003.parquet"]


def test_the_log_names_missing_files(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "data", train_00000_of_00003=[RECORDS["trl"]], train_00002_of_00003=[RECORDS["trl"]])
    imported("trl", folder)
    warning = "warning: `data` is missing 1 of the files that its shard names count: `train-00001-of-00003.parquet`"
    assert warning in capsys.readouterr().out
    imported("trl", folder / "train-00000-of-00003.parquet")  # the block requests one split only
    assert "lacks" not in capsys.readouterr().out
