"""Files that are not what their name says: archives, other encodings, tables, Git LFS pointers."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.stages.data import import_examples

ROW = {"image": "0.png", "question": "what?", "task": "open"}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 132735\n"
LINE = json.dumps(ROW).encode()


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.jsonl", data)
    return file.getvalue()


def refused(kind: str, path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        import_examples.run(
            config=FileDataset(kind=kind, path=str(path), **settings), examples=path.parent / "examples.parquet"
        )
    return str(caught.value)


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.jsonl.gz", "data.parquet", "data.tsv"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (gzip.compress(LINE), "a gzip archive"),
        (bz2.compress(LINE), "a bzip2 archive"),
        (lzma.compress(LINE), "an xz archive"),
        (zipped(LINE), "a zip archive or an Excel workbook"),
        (LINE.decode().encode("utf-16"), "UTF-16 text"),
        (LINE.decode().encode("utf-16-be").join([b"\xfe\xff", b""]), "UTF-16 text"),
        (POINTER, "a Git LFS pointer in place of the file\nhint: download the file: `git lfs pull`"),
    ],
    # the default would hold the data, and archives hold the time
    ids=["gzip", "bzip2", "xz", "zip", "utf-16", "utf-16-be", "pointer"],
)
def test_an_archive_or_a_pointer_is_named(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    for kind in ["trl", "parquet" if name.endswith("parquet") else "jsonl"]:
        assert f"{name}` is {what}" in refused(kind, tmp_path / name)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("jsonl", "data.csv"),
        ("jsonl", "data.jsonl"),
        ("jsonl", "data.json"),
        ("trl", "data.jsonl"),
        ("trl", "data.json"),
    ],
)
def test_csv_is_named_and_the_hint_names_its_kind(tmp_path: Path, kind: str, separator: str, name: str) -> None:
    columns = ("image", '"question"', "task", "answer text")
    (tmp_path / name).write_text("\ufeff" + separator.join(columns) + "\r\n" + separator.join(["x"] * 4) + "\r\n")
    message = refused(kind, tmp_path / name)
    assert f"{name}` is CSV, not JSON\nhint: set `kind: csv`, or name the file `*.csv`" in message


def test_parquet_named_as_json_lines(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "data.jsonl")
    assert "is a Parquet file, not JSON\nhint: set `kind: parquet`" in refused("jsonl", tmp_path / "data.jsonl")


@pytest.mark.parametrize("text", ["{'image': '0.png', 'question': 'q'}", "hello, world", "[1, 2]", "3", "<html>, <p>"])
def test_other_text_stays_bad_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.jsonl").write_text(text + "\n")
    message = refused("jsonl", tmp_path / "data.jsonl")
    assert ("is CSV" in message) == (text == "hello, world")  # two words may be a header


def test_pointers_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([ROW]), folder / "train-00000-of-00002.parquet")
    (folder / "train-00001-of-00002.parquet").write_bytes(POINTER)
    assert "train-00001-of-00002.parquet` is a Git LFS pointer" in refused("parquet", folder)
    saved = tmp_path / "saved"
    datasets.Dataset.from_list([ROW]).save_to_disk(str(saved))
    (file,) = saved.glob("*.arrow")
    file.write_bytes(POINTER)
    assert f"{file.name}` is a Git LFS pointer" in refused("hf", saved)


def test_an_image_that_is_a_pointer(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(POINTER)
    (tmp_path / "data.jsonl").write_bytes(LINE)
    message = refused("jsonl", tmp_path / "data.jsonl")
    assert "line 1: image `0.png`: the file is a Git LFS pointer in place of the file; download the file" in message
