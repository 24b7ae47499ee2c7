"""Files and tables as they come: one line that names the file for each mistake, and no good row is lost with a bad one."""

import os
import struct
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import read_lineage, read_table, write_table
from perceptune.stages import examples
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "0.png")
    return tmp_path


def _file(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


TABLE = pa.table({"image": ["0.png"], "question": ["q"], "task": ["open"]})


def _parquet(**columns: Any) -> Any:
    return lambda path: pq.write_table(pa.table({**{n: TABLE[n] for n in TABLE.column_names}, **columns}), path)


def _cut(path: Path) -> None:
    pq.write_table(TABLE, path)
    path.write_bytes(path.read_bytes()[:-30])


def _saved(damage: Any) -> Any:
    """A folder of `datasets`, then damaged."""

    def make(path: Path) -> None:
        datasets.Dataset(TABLE).save_to_disk(str(path))
        damage(path)

    return make


def _shortened(path: Path) -> None:
    (file,) = path.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        ("jsonl", lambda path: None, "does not exist"),
        ("jsonl", _file(b""), "has no rows"),
        ("jsonl", _file(b"\n\n  \n"), "has no rows"),
        ("jsonl", lambda path: path.mkdir(), "is a folder, expected a file"),
        ("jsonl", _file('{"a": 1}'.encode("utf-16")), "not UTF-8 text|no valid JSON"),
        ("jsonl", _file(bytes(1000)), "no valid JSON"),
        ("parquet", _file(b""), "not readable as Parquet"),
        ("parquet", _file(b"text"), "not readable as Parquet"),
        ("parquet", _cut, "not readable as Parquet"),
        ("parquet", lambda path: path.mkdir(), "is a folder, expected a file"),
        ("parquet", lambda path: pq.write_table(TABLE.drop_columns("image"), path), "row 1: key `image` is missing"),
        (
            "parquet",
            lambda path: pq.write_table(TABLE.drop_columns("question"), path),
            "row 1: key `question` is missing",
        ),
        ("parquet", _parquet(question=[3]), "`question` is 3, expected text"),
        ("parquet", _parquet(image=[3.5]), "expected a path"),
        ("parquet", _parquet(task=[["open"]]), "`task` is .*, expected one of"),
        ("parquet", lambda path: pq.write_table(TABLE.slice(0, 0), path), "has no rows"),
        ("hf", lambda path: None, "does not exist"),
        ("hf", lambda path: path.mkdir(), "expected a folder written by `datasets.save_to_disk`"),
        ("hf", _file(b"text"), "expected a folder written by `datasets.save_to_disk`"),
        ("hf", _saved(lambda path: (path / "state.json").write_text("{")), "is damaged, expected a folder"),
        ("hf", _saved(lambda path: (path / "state.json").write_text("[]")), "is damaged, expected a folder"),
        ("hf", _saved(lambda path: (path / "dataset_info.json").write_text("x")), "is damaged, expected a folder"),
        ("hf", _saved(_shortened), "is damaged, expected a folder"),
        ("hf", _saved(lambda path: next(path.glob("*.arrow")).write_bytes(b"")), "is damaged, expected a folder"),
        ("hf", _saved(lambda path: next(path.glob("*.arrow")).unlink()), "expected a folder written by"),
        ("jsonl", os.mkfifo, "is no regular file, expected a file"),
        ("parquet", os.mkfifo, "is no regular file, expected a file"),
        ("jsonl", lambda path: path.symlink_to("/dev/zero"), "is no regular file, expected a file"),
        ("jsonl", lambda path: path.symlink_to("mine"), "cannot be read: Too many levels of symbolic links"),
        ("jsonl", lambda path: path.symlink_to("/proc/self/mem"), "cannot be read: Input/output error"),
        (
            "parquet",
            lambda path: pq.write_table(pa.Table.from_arrays([[1], [2]], names=["a", "a"]), path),
            "Multiple matches",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(folder: Path, kind: str, make: Any, message: str) -> None:
    path = folder / "mine"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        examples.run(config=FileDataset(kind=kind, path=str(path)), examples=folder / "examples.parquet")  # type: ignore[arg-type]
    assert "mine" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert not (folder / "examples.parquet").exists()


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_path_that_no_file_can_have_is_one_line(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read: File name too long|does not exist") as caught:
        examples.run(config=FileDataset(kind="jsonl", path=name), examples=folder / "examples.parquet")
    assert len(str(caught.value)) < 300


def _texts(*texts: bytes) -> pa.Array:
    """A text column of these bytes, valid or not."""
    ends = [sum(map(len, texts[:n])) for n in range(len(texts) + 1)]
    buffers = [None, pa.py_buffer(struct.pack(f"<{len(ends)}i", *ends)), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


@pytest.mark.parametrize("kind", ["parquet", "hf"])
@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("question", _texts(b"q", b"\xff\xfe", b"q"), "column `question` cannot be read: 'utf-8' codec can't decode"),
        ("note", _texts(b"q", b"\xff\xfe", b"q"), "column `note` cannot be read: 'utf-8' codec can't decode"),
        ("when", pa.array([0, 2**62, 1], pa.timestamp("us")), "column `when` cannot be read: date value out of range"),
        ("day", pa.array([0, 2**30, 1], pa.date32()), "column `day` cannot be read: days=1073741824"),
        ("image", pa.array(["0.png", "\x1b\n.png", "0.png"]), r"image `\\x1b\\n\.png`: the file does not exist"),
        ("image", pa.array(["0.png", None, "0.png"]), "key `image` is missing"),
        ("box", pa.array([None, [1.0, 2.0], None]), r"`box` is \[1\.0, 2\.0\], expected four finite numbers"),
    ],
)
def test_a_value_that_cannot_be_read_costs_its_row_alone(
    folder: Path, kind: str, column: str, values: pa.Array, reason: str
) -> None:
    table = pa.table({"image": ["0.png"] * 3, "question": ["q"] * 3, "task": ["open"] * 3} | {column: values})
    path = folder / "mine"
    datasets.Dataset(table).save_to_disk(str(path)) if kind == "hf" else pq.write_table(table, path)
    config = FileDataset(kind=kind, path=str(path), images=str(folder), max_failed=0.5)  # type: ignore[arg-type]
    examples.run(config=config, examples=folder / "examples.parquet")
    reasons = read_table(folder / "examples.parquet", "examples")["reason"].to_pylist()
    assert reasons[0] is reasons[2] is None
    assert pl.Series([reasons[1]]).str.contains(reason).all(), reasons[1]


def _metrics(path: Path) -> None:
    write_table(path, "training", [{"experiment": "e", "step": 1, "metric": "loss", "value": 0.5}], {})


def _changed(change: Any) -> Any:
    def make(path: Path) -> None:
        _metrics(path)
        pq.write_table(change(pq.read_table(path)), path)

    return make


def _half(path: Path) -> None:
    _metrics(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist, expected a `training` table"),
        (_file(b""), "not readable as Parquet"),
        (_file(b"PAR1"), "not readable as Parquet"),
        (_file(b"PAR1" + bytes(100) + b"PAR1"), "not readable as Parquet"),
        (_file(b"<html>"), "not readable as Parquet"),
        (_half, "not readable as Parquet"),
        (lambda path: path.mkdir(), "is a folder, expected a `training` table"),
        (os.mkfifo, "is no file, expected a `training` table"),
        (_changed(lambda t: t.drop_columns("value")), "is no `training` table of this version"),
        (_changed(lambda t: t.append_column("more", [[1]])), "is no `training` table of this version"),
        (_changed(lambda t: t.set_column(1, "step", [["1"]])), "is no `training` table of this version"),
        (lambda path: pq.write_table(TABLE, path), "is no `training` table of this version"),
    ],
)
def test_a_bad_table_is_one_line_that_says_what_to_do(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "table.parquet"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path, "training")
    assert str(path) in str(caught.value)


def _record(text: bytes) -> Any:
    return lambda path: pq.write_table(TABLE.replace_schema_metadata({b"perceptune": text}), path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist, expected a table"),
        (_file(b""), "not readable as Parquet"),
        (_file(b"<html>"), "not readable as Parquet"),
        (_half, "not readable as Parquet"),
        (_record(b"{"), "not readable as Parquet: Expecting property name"),
        (_record(b"\xff"), "not readable as Parquet"),
        (_record(b"[1]"), r"has no lineage but '\[1\]'"),
    ],
)
def test_a_broken_lineage_is_one_line_that_names_the_file(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "table.parquet"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        read_lineage(path)
    assert str(path) in str(caught.value)


def test_a_table_of_somebody_else_has_an_empty_lineage(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "table.parquet")
    assert read_lineage(tmp_path / "table.parquet") == {}
