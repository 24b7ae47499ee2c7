"""Imports go through a dataset in batches: the table and the messages are those of one batch."""

import hashlib
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.stages.data import import_examples, row_batches
from PIL import Image


def png(size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (size, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of 1 to 6 pixels, of which the fourth is broken."""
    for size in range(1, 7):
        (tmp_path / f"{size}.png").write_bytes(png(size) if size != 4 else b"broken")
    return tmp_path


def drawn(seed: int) -> list[dict[str, Any]]:
    """Rows with ids that repeat, bad images and bad boxes."""
    chance = random.Random(seed)
    rows = []
    for _ in range(40):
        row = {"image": f"{chance.randrange(1, 7)}.png", "question": "?", "task": "grounding"}
        row["box"] = [0, 0, chance.randrange(7), chance.randrange(1, 7)]
        if chance.random() < 0.6:
            row["id"] = chance.choice(["a", "b", "c", f"line-{chance.randrange(40)}"])
        rows.append(row)
    return rows


def imported(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), **settings)
    import_examples.run(config=config, examples=folder / "examples.parquet")
    return list(read_table(folder / "examples.parquet", EXAMPLES).to_pylist())


def cause(row: dict[str, Any], number: int, first: dict[str, str]) -> str | None:
    """Why a row cannot be used, found by going through the rows one by one."""
    size = int(row["image"][0])
    if size == 4:
        return "not an image that Pillow can read"
    _, _, right, bottom = row["box"]
    if right <= 0:
        return "has no area"
    if max(right, bottom) > size + 1:
        return f"exceeds the image of {size} x {size} pixels"
    name, place = row.get("id", f"line-{number}"), f"line {number}"
    if first.setdefault(name, place) != place:
        return f"`id` '{name}' was already used in {first[name]}, expected unique ids"
    return None


@pytest.mark.parametrize("seed", range(4))
def test_batches_of_any_size_give_one_table(
    seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, first = drawn(seed), dict[str, str]()
    expected = [cause(row, number, first) for number, row in enumerate(rows, 1)]
    whole = imported(folder, rows, max_failed_share=1.0)
    said = capsys.readouterr().out
    for row, why in zip(whole, expected, strict=True):
        assert why in row["reason"] if why else row["reason"] is None
    assert said.count("left out: data.jsonl, line ") == sum(why is not None for why in expected)
    monkeypatch.setattr(row_batches, "ROWS_AT_ONCE", 1 + 3 * seed)
    assert imported(folder, rows, max_failed_share=1.0) == whole
    assert capsys.readouterr().out == said
    monkeypatch.setattr(row_batches, "BYTES_AT_ONCE", 20)
    assert imported(folder, rows, max_failed_share=1.0) == whole
    assert capsys.readouterr().out == said


def test_the_ceiling_counts_the_rows_of_all_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image": f"{2 + number % 3}.png", "question": "?", "task": "open"} for number in range(12)]
    monkeypatch.setattr(row_batches, "ROWS_AT_ONCE", 5)
    with pytest.raises(UserError, match=r"(?s)4 of 12 rows cannot be used.*line 3: .* \(4 times\)"):
        imported(folder, rows, max_failed_share=0.3)
    assert not (folder / "examples.parquet").exists()
    assert len(imported(folder, rows, max_failed_share=0.34)) == 12


def test_memory_does_not_depend_on_the_images_in_a_file(tmp_path: Path) -> None:
    """Peak memory of a process of its own: 240 MB of images."""
    images = [{"bytes": png(size) + bytes([size]) * 120_000, "path": None} for size in range(1, 21)] * 100
    table = pa.table({"image": images, "question": ["?"] * 2000, "task": ["open"] * 2000})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=100)
    code = """
import re, sys
from pathlib import Path
from perceptune.contracts.config import FileDataset
from perceptune.stages.data import import_examples
import_examples.run(config=FileDataset(kind="parquet", path=sys.argv[1]), examples=Path(sys.argv[2]))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])  # ru_maxrss includes the parent's
"""
    command = [sys.executable, "-c", code, tmp_path / "data.parquet", tmp_path / "examples.parquet"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search("opened 20 of 20 images", run.stdout)
    assert int(run.stdout.split()[-1]) / 1000 < 300
    stored = pq.ParquetFile(tmp_path / "examples.parquet").metadata
    assert stored.num_rows == 2000
    assert max(stored.row_group(n).total_byte_size for n in range(stored.num_row_groups)) < 2**24 + 200_000


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0])
def test_images_held_out_for_tests_are_drawn_by_their_content(share: float | None, folder: Path) -> None:
    rows = [
        {"image": f"{size}.png", "question": "?", "task": "open", **({"split": split} if split else {})}
        for size in (1, 2, 3, 5, 6)
        for split in ("train", "validation", "")
    ]
    found = imported(folder, rows, test_share=share)
    for row, given in zip(found, rows, strict=True):
        digest = hashlib.sha256((folder / given["image"]).read_bytes()).hexdigest()
        drawn = int(digest, 16) / 2**256 < (share or 0)
        expected = "validation" if given.get("split") == "validation" else "test" if drawn else "train"
        assert row["split"] == expected
    splits = {row["split"] for row in found}
    assert splits == {None: {"train", "validation"}, 0.0: {"train", "validation"}, 1.0: {"test", "validation"}}.get(
        share, {"train", "test", "validation"}
    )
    again = imported(folder, rows[::-1][:6], test_share=share)
    assert [row["split"] for row in again] == [row["split"] for row in found[::-1][:6]]
