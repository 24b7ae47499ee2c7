"""An import opens only images that are new or have changed since the last one."""

import base64
import io
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.core.data import image_facts
from perceptune.core.data.image_facts import ImageFacts, KnownImages
from perceptune.core.data.shapes import render, scene_and_row
from perceptune.stages.data import import_examples

LONG_AGO = 1_700_000_000_000_000_000
"""Nanoseconds. A file that has just been written is read again, in case it changes again."""


def encoded(number: int) -> bytes:
    """A drawing as BMP: all have the same number of bytes."""
    file = io.BytesIO()
    render(scene_and_row(2, "train", number, "grounding")[0]).save(file, "BMP")
    return file.getvalue()


class Dataset:
    """JSON lines with images, imported again and again."""

    def __init__(self, folder: Path, read: list[str]) -> None:
        self.folder, self._read = folder, read
        self.memory = folder / "memory.sqlite"
        self.rows: list[dict[str, Any]] = []

    def put(self, name: str, data: bytes, date: int = LONG_AGO) -> None:
        path = self.folder / name
        path.write_bytes(data)
        os.utime(path, ns=(date, date))

    def add(self, number: int) -> None:
        self.put(f"{number}.bmp", encoded(number))
        self.rows.append({"image": f"{number}.bmp", "question": f"{number}?", "task": "open"})

    def run(self, **settings: Any) -> int:
        """Imports; returns how many files were read, after a comparison with an import from scratch."""
        (self.folder / "data.jsonl").write_text("\n".join(map(json.dumps, self.rows)))
        config = FileDataset(kind="jsonl", path=str(self.folder / "data.jsonl"), **settings)
        self._read.clear()
        import_examples.run(config=config, examples=self.table, memory=self.memory)
        count = len(self._read)
        import_examples.run(config=config, examples=self.folder / "scratch.parquet")
        assert self.table.read_bytes() == (self.folder / "scratch.parquet").read_bytes()
        return count

    @property
    def table(self) -> Path:
        return self.folder / "examples.parquet"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Twenty images, imported once."""
    read: list[str] = []
    whole = image_facts.image_bytes
    monkeypatch.setattr(image_facts, "image_bytes", lambda image: read.append(image["path"]) or whole(image))
    made = Dataset(tmp_path, read)
    for number in range(20):
        made.add(number)
    assert made.run() == 20
    return made


@pytest.fixture
def opened(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """The log's line on opened images, of the last import with a memory."""

    def line() -> str:
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("opened")]
        return lines[-2]  # the last one is that of the import from scratch

    return line


def test_one_more_row_opens_one_image(dataset: Dataset, opened: Callable[[], str]) -> None:
    dataset.add(20)
    assert dataset.run() == 1
    assert opened() == "opened 1 of 21 images"
    assert dataset.run() == 0
    assert opened() == "opened 0 of 21 images"


def test_a_changed_image_is_opened_again(dataset: Dataset, opened: Callable[[], str]) -> None:
    before = (dataset.folder / "3.bmp").stat()
    dataset.put("3.bmp", encoded(33), LONG_AGO + 1)
    assert (dataset.folder / "3.bmp").stat().st_size == before.st_size  # only the date differs
    assert dataset.run() == 1
    assert opened() == "opened 1 of 20 images"
    dataset.put("4.bmp", encoded(44) + b"more", before.st_mtime_ns)  # only the size differs
    assert dataset.run() == 1
    assert opened() == "opened 1 of 20 images"


def test_a_new_date_of_the_same_content_is_read_but_not_opened(dataset: Dataset, opened: Callable[[], str]) -> None:
    os.utime(dataset.folder / "3.bmp", ns=(LONG_AGO + 1, LONG_AGO + 1))
    assert dataset.run() == 1
    assert opened() == "opened 0 of 20 images"


def test_a_file_that_has_just_changed_is_read_again(dataset: Dataset, opened: Callable[[], str]) -> None:
    """Its next change may leave size and modification time as they are."""
    (dataset.folder / "3.bmp").write_bytes(encoded(33))
    date = (dataset.folder / "3.bmp").stat().st_mtime_ns
    assert dataset.run() == 1
    dataset.put("3.bmp", encoded(34), date)
    assert dataset.run() == 1
    assert opened() == "opened 1 of 20 images"


def test_a_removed_row_is_gone(dataset: Dataset, opened: Callable[[], str]) -> None:
    dataset.rows.pop(3)
    assert dataset.run() == 0
    assert opened() == "opened 0 of 19 images"
    assert read_table(dataset.table, EXAMPLES).num_rows == 19


def test_images_in_the_rows_are_known_by_their_content(dataset: Dataset, opened: Callable[[], str]) -> None:
    dataset.rows += [
        {**dataset.rows[0], "image": "data:image/bmp;base64," + base64.b64encode(encoded(n)).decode()} for n in (0, 50)
    ]
    assert dataset.run() == 0
    assert opened() == "opened 1 of 21 images"
    dataset.run()
    assert opened() == "opened 0 of 21 images"


def test_an_import_that_fails_is_not_repeated_from_the_start(dataset: Dataset, opened: Callable[[], str]) -> None:
    for number in range(20, 25):
        dataset.add(number)
    dataset.put("21.bmp", b"no image")
    with pytest.raises(UserError, match="not an image that Pillow can read"):
        dataset.run()
    dataset.put("21.bmp", encoded(21))
    assert dataset.run() == 1
    assert opened() == "opened 1 of 25 images"


def test_other_code_or_packages_open_everything(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_examples, "version", lambda package: "0")
    assert dataset.run() == 20


@pytest.mark.parametrize("damage", ["text", "no file", "other value", "other facts", "empty", "folder"])
def test_a_damaged_memory_opens_everything(dataset: Dataset, damage: str) -> None:
    def write(facts: str) -> None:
        with closing(sqlite3.connect(dataset.memory)) as connection, connection:
            assert connection.execute(f"UPDATE images SET facts = {facts}").rowcount == 20

    match damage:
        case "text":
            write("substr(facts, 1, 20)")
        case "no file":
            dataset.memory.write_bytes(b"no database" * 100)
        case "other value":
            write("'3'")
        case "other facts":
            write("'[1, 2, true, 4]'")
        case "empty":
            dataset.memory.write_bytes(b"")
        case "folder":
            dataset.memory.unlink()
            dataset.memory.mkdir()
    assert dataset.run() == 20
    assert dataset.run() == (20 if damage == "folder" else 0)


def test_known_images_are_stored_and_read(tmp_path: Path) -> None:
    memory, key = DigestMemory(tmp_path / "memory.sqlite"), ("/a.png", 5, 6)
    facts = [ImageFacts("d", (3, 4), True, b"\x01\xff"), ImageFacts("e", (1, 1), False, b"")]
    with memory.opened() as file:
        known = KnownImages(file, "code")
        known.add_file(key, "d")
        known.add_file(("/not-unicode-\udcff", 5, 6), "d")
        for one in facts:
            known.add_content(one)
        known.flush()
    with memory.opened() as file:
        known = KnownImages(file, "code")
        assert [known.of_content(one.sha256) for one in facts] == facts
        assert known.of_file(key) == facts[0]
        assert known.of_file(("/a.png", 5, 7)) is known.of_file(("/not-unicode-\udcff", 5, 6)) is None
        assert KnownImages(file, "other code").of_file(key) is None
