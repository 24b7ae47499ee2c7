"""Reading and writing of tables: schema, atomicity, lineage."""

import os
import random
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import io
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, table_writer, to_table, write_table
from perceptune.contracts.tables.training import TRAINING

ROW = {"experiment": "e", "step": 1, "metric": "loss", "value": 0.5}


def test_round_trip_with_lineage(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "t.parquet"
    write_table(path, TRAINING, [ROW], {"stage": "train", "parameters": {"beta": 0.1}})
    assert read_table(path, TRAINING).to_pylist() == [ROW]
    assert read_lineage(path) == {"table": "training", "stage": "train", "parameters": {"beta": 0.1}}
    assert [p.name for p in path.parent.iterdir()] == ["t.parquet"]  # no temporary file is left


def test_polars_frames_are_cast_to_the_schema(tmp_path: Path) -> None:
    frame = pl.DataFrame([ROW])  # step is int64 here, int32 in the schema; strings are large_string
    write_table(tmp_path / "t.parquet", TRAINING, frame, {})
    assert read_table(tmp_path / "t.parquet", TRAINING).schema.equals(TRAINING.schema)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "extra": 1}], "unknown columns"),
        (pl.DataFrame([{"experiment": "e"}]), "missing columns"),
        ([{**ROW, "value": None}], "column `value`: 1 nulls"),
    ],
)
def test_rows_outside_the_schema_are_refused(rows: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_table(TRAINING, rows)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, TRAINING, [ROW], {})

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_table(path, TRAINING, [{**ROW, "step": 2}], {})
    assert read_table(path, TRAINING).to_pylist() == [ROW]
    assert len(list(tmp_path.iterdir())) == 1


def test_some_columns_are_read_in_the_order_asked_for_of_a_table_that_is_checked_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, TRAINING, [ROW], {})
    assert read_table(path, TRAINING, ["value", "step"]).column_names == ["value", "step"]
    pq.write_table(pq.read_table(path).drop_columns(["metric"]), path)
    with pytest.raises(
        UserError, match=r"is not a `training` table of this version: columns \['experiment', 'step', 'value'\]"
    ):
        read_table(path, TRAINING, ["value", "step"])


def test_truncated_missing_and_foreign_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match=r"t\.parquet` does not exist"):
        read_table(path, TRAINING)
    write_table(path, TRAINING, [ROW], {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"t\.parquet` is not readable"):
        read_table(path, TRAINING)
    pq.write_table(pl.DataFrame({"a": [1]}).to_arrow(), path)
    with pytest.raises(UserError, match="is not a `training` table"):
        read_table(path, TRAINING)


def test_tables_with_images_are_written_in_groups_that_arrow_can_read_back(tmp_path: Path) -> None:
    """Arrow cannot read row groups with more than 2 GiB of images (`Nested data conversions not implemented ...`)."""
    row = {"task": "open", "question": "?", "images": [{"bytes": b"x", "path": None}], "image_sha256": ["0"],
           "image_hashes": [], "image_sizes": [[1, 1]], "target": None, "box": None, "split": "train", "source": None, "reason": None}  # fmt: skip
    write_table(tmp_path / "t.parquet", EXAMPLES, [{"example_id": str(n), **row} for n in range(2500)], {})
    groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [1000, 1000, 500]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size_become_one_table(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "GROUP_ROWS", 7)
    chance = random.Random(seed)
    rows = [{**ROW, "step": step} for step in range(chance.randrange(60))]
    with table_writer(tmp_path / "t.parquet", TRAINING) as table:
        left = rows
        while left or chance.random() < 0.3:
            size = chance.randrange(20)
            table.write(left[:size])
            left = left[size:]
        assert table.rows == len(rows)
        table.lineage = {"stage": "s"}
    assert read_table(tmp_path / "t.parquet", TRAINING).to_pylist() == rows
    assert read_lineage(tmp_path / "t.parquet") == {"table": "training", "stage": "s"}
    stored = pq.read_metadata(tmp_path / "t.parquet")
    groups = [stored.row_group(n).num_rows for n in range(stored.num_row_groups)]
    assert groups == [7] * (len(rows) // 7) + ([len(rows) % 7] if len(rows) % 7 or not rows else [])


def test_a_table_that_is_not_finished_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(KeyError), table_writer(tmp_path / "t.parquet", TRAINING) as table:
        table.write([ROW])
        raise KeyError
    message = "`training` is written without a lineage"
    with pytest.raises(ValueError, match=message), table_writer(tmp_path / "t.parquet", TRAINING) as table:
        table.write([ROW])
    assert not list(tmp_path.iterdir())
