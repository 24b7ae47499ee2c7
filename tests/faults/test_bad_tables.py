"""Invalid files and tables: one line per mistake that names the file, and no valid row is lost."""

import json
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.data import parquet_files, read_files
from perceptune.planning.data_digest import data_digest
from perceptune.stages.data import import_examples
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
    """A folder written by `datasets`, then damaged."""

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
        ("jsonl", _file('{"a": 1}'.encode("utf-16")), "mine` is UTF-16 text\nhint: convert it to UTF-8"),
        ("jsonl", _file(bytes(1000)), "not valid JSON"),
        ("parquet", _file(b""), "not readable as Parquet"),
        ("parquet", _file(b"text"), "not readable as Parquet"),
        ("parquet", _cut, "not readable as Parquet"),
        (
            "parquet",
            lambda path: path.mkdir(),
            r"is an empty folder, expected a file or a folder of `\*\.parquet` files",
        ),
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
        ("jsonl", os.mkfifo, "is not a regular file, expected a file"),
        ("parquet", os.mkfifo, "is not a regular file, expected a file"),
        ("jsonl", lambda path: path.symlink_to("/dev/zero"), "is not a regular file, expected a file"),
        ("jsonl", lambda path: path.symlink_to("mine"), "cannot be read: Too many levels of symbolic links"),
        ("jsonl", lambda path: path.symlink_to("/proc/self/mem"), "cannot be read: Input/output error"),
        (
            "parquet",
            lambda path: pq.write_table(pa.Table.from_arrays([[1], [2]], names=["a", "a"]), path),
            "two columns `a`, expected different names",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(folder: Path, kind: str, make: Any, message: str) -> None:
    path = folder / "mine"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        import_examples.run(config=FileDataset(kind=kind, path=str(path)), examples=folder / "examples.parquet")  # type: ignore[arg-type]
    assert "mine" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert not (folder / "examples.parquet").exists()


def _run(folder: Path, kind: str, path: Path, **settings: Any) -> list[dict[str, Any]]:
    block = FileDataset(kind=kind, path=str(path), **settings)
    data_digest(block, DigestMemory(folder / "memory.sqlite"))  # digests come first, as in the Snakefile
    import_examples.run(config=block, examples=folder / "examples.parquet")
    return read_table(folder / "examples.parquet", EXAMPLES).to_pylist()


def _stopped(folder: Path, kind: str, path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        _run(folder, kind, path, **settings)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_a_folder_of_parquet_files_has_a_kind_that_reads_it(folder: Path) -> None:
    (folder / "mine").mkdir()
    pq.write_table(TABLE, folder / "mine" / "a.parquet")
    assert "hint: `kind: parquet` reads folders of Parquet files" in _stopped(folder, "hf", folder / "mine")
    assert "`kind: parquet` reads folders of Parquet files" in _stopped(folder, "jsonl", folder / "mine")
    assert len(_run(folder, "parquet", folder / "mine", images=str(folder))) == 1


ROWS = [{"image": "0.png", "question": "q", "task": "open"}] * 2


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list_is_read_whatever_it_is_called(folder: Path, name: str, indent: int | None) -> None:
    (folder / name).write_text("\n" + json.dumps(ROWS, indent=indent))
    assert [row["example_id"] for row in _run(folder, "jsonl", folder / name)] == ["record-1", "record-2"]


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl"])
def test_an_object_over_many_lines_is_one_record(folder: Path, name: str) -> None:
    (folder / name).write_text(json.dumps({"data": ROWS}, indent=2))
    assert "record 1: key `messages` is missing; found keys data" in _stopped(folder, "ms_swift", folder / name)


def test_a_file_that_begins_with_a_bad_line_is_read_by_lines(folder: Path) -> None:
    (folder / "mine.jsonl").write_text('{"image": "0.png",\n' + json.dumps(ROWS[0]))
    rows = _run(folder, "jsonl", folder / "mine.jsonl", max_failed_rows=1)
    assert [bool(row["reason"]) for row in rows] == [True, False]


@pytest.mark.parametrize("name", ["mine.txt", "mine.jsonl.gz", "mine"])
def test_a_file_of_an_unknown_kind_is_refused_by_its_name(folder: Path, name: str) -> None:
    (folder / name).write_text("image,question\n0.png,q\n")
    reason = f"{name}`: expected one of the suffixes .csv, .json, .jsonl, .parquet, .tsv"
    assert reason in _stopped(folder, "easyr1", folder / name)


def test_a_suffix_in_capitals_is_the_same(folder: Path) -> None:
    table = pa.table({"problem": ["q"], "answer": ["3"], "image": ["0.png"]})
    pq.write_table(table, folder / "MINE.PARQUET")
    assert _run(folder, "easyr1", folder / "MINE.PARQUET")[0]["target"] == "3"


@pytest.mark.parametrize("kind", ["parquet", "rlhf_v"])
def test_a_column_of_bytes_is_an_image(folder: Path, kind: str) -> None:
    data = (folder / "0.png").read_bytes()
    extra = {"mask": {"bytes": data, "path": "m.png"}, "raw": data, "chosen": "a", "rejected": "b"}
    pq.write_table(
        pa.Table.from_pylist([{"image": data, "question": "q", "task": "open", **extra}]), folder / "mine.parquet"
    )
    (row,) = _run(folder, kind, folder / "mine.parquet")
    assert row["images"] == [{"bytes": data, "path": None}]
    if kind == "parquet":  # rlhf_v keeps only columns that it knows
        kept = json.loads(row["source"])
        assert kept["mask"] == {"bytes": f"{len(data)} bytes", "path": "m.png"}
        assert kept["raw"] == f"{len(data)} bytes"


def test_an_object_of_very_many_keys_names_a_few(folder: Path) -> None:
    (folder / "mine.json").write_text(json.dumps({f"{n}\n": {} for n in range(39_000)}))
    message = _stopped(folder, "ms_swift", folder / "mine.json")
    assert "key `messages` is missing; found keys 0\\n, 1\\n, " in message
    assert message.endswith(" and 38,980 more")
    (folder / "mine.json").unlink()
    pq.write_table(pa.table({f"c{n}": [1] for n in range(99)}), folder / "mine.parquet")
    assert _stopped(folder, "refcoco_parquet", folder / "mine.parquet").endswith(" and 79 more")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextmanager
def _unprivileged() -> Iterator[None]:
    """Run as a user without root's permissions."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("kind", ["easyr1", "jsonl", "parquet", "hf", "textvqa", "refer"])
def test_what_may_not_be_read_is_one_line(reachable: Path, kind: str) -> None:
    for name in ("unlisted", "closed"):
        (reachable / name).mkdir()
    for name in ("mine.json", "mine.jsonl", "closed/mine.json", "unlisted/mine.json"):
        (reachable / name).write_text("[]")
        (reachable / name).chmod(0)
    (reachable / "closed").chmod(0)
    (reachable / "unlisted").chmod(0o111)
    with _unprivileged():
        if kind in ("easyr1", "jsonl"):
            assert "mine.json` cannot be read: Permission denied" in _stopped(reachable, kind, reachable / "mine.json")
            assert "mine.jsonl` cannot be read: Permission denied" in _stopped(
                reachable, kind, reachable / "mine.jsonl"
            )
        assert "cannot be read: Permission denied" in _stopped(reachable, kind, reachable / "closed" / "mine.json")
        for name in ("closed", "unlisted"):
            assert f"`{reachable / name}` cannot be listed: Permission denied" in _stopped(
                reachable, kind, reachable / name
            )


def test_images_that_cannot_be_reached_are_one_line(reachable: Path) -> None:
    (reachable / "mine.jsonl").write_text(json.dumps(ROWS[0]))
    (reachable / "closed").mkdir(mode=0)
    with _unprivileged():
        message = _stopped(reachable, "jsonl", reachable / "mine.jsonl", images=str(reachable / "closed" / "images"))
    assert (
        "closed/images` cannot be reached: Permission denied, expected the directory that image paths are relative to"
        in message
    )


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_path_that_no_file_can_have_is_one_line(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read: File name too long|does not exist") as caught:
        import_examples.run(config=FileDataset(kind="jsonl", path=name), examples=folder / "examples.parquet")
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
    config = FileDataset(kind=kind, path=str(path), images=str(folder), max_failed_share=0.5)  # type: ignore[arg-type]
    import_examples.run(config=config, examples=folder / "examples.parquet")
    reasons = read_table(folder / "examples.parquet", EXAMPLES)["reason"].to_pylist()
    assert reasons[0] is reasons[2] is None
    assert pl.Series([reasons[1]]).str.contains(reason).all(), reasons[1]


def _metrics(path: Path) -> None:
    write_table(path, TRAINING, [{"experiment": "e", "step": 1, "metric": "loss", "value": 0.5}], {})


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
        (os.mkfifo, "is not a file, expected a `training` table"),
        (_changed(lambda t: t.drop_columns("value")), "is not a `training` table of this version"),
        (_changed(lambda t: t.append_column("more", [[1]])), "is not a `training` table of this version"),
        (_changed(lambda t: t.set_column(1, "step", [["1"]])), "is not a `training` table of this version"),
        (lambda path: pq.write_table(TABLE, path), "is not a `training` table of this version"),
    ],
)
def test_a_bad_table_is_one_line_that_says_what_to_do(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "table.parquet"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path, TRAINING)
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
        (_record(b"[1]"), r"lineage is '\[1\]', expected a JSON object"),
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


def test_row_groups_larger_than_arrow_can_read_at_once_are_read_in_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow refuses lists with more than 2 GiB of images, which one row group may hold."""
    images = pa.array([[{"bytes": os.urandom(100_000), "path": None}] for _ in range(7)])
    pq.write_table(pa.table({"images": images, "question": ["q"] * 7}), folder / "large.parquet")
    metadata = pq.read_metadata(folder / "large.parquet")
    assert metadata.num_row_groups == 1
    assert 7 < parquet_files._rows_at_once(metadata) < parquet_files.ROWS_AT_ONCE
    monkeypatch.setattr(parquet_files, "BYTES_AT_ONCE", 350_000)
    assert 1 < parquet_files._rows_at_once(metadata) <= 7
    records = list(read_files.Files(folder / "large.parquet").records())
    assert [place for place, _ in records] == [f"row {n}" for n in range(1, 8)]
    assert [record["images"] for _, record in records] == images.to_pylist()
