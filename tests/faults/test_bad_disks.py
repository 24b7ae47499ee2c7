"""Disks that are full or read-only: existing files stay, and no partial file appears."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.files import write_text
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.training import TRAINING

ROWS = [{"experiment": os.urandom(2000).hex(), "step": n, "metric": "loss", "value": 0.5} for n in range(2000)]


def mounted(folder: Path, options: str) -> bool:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "size=1m"):
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    write_table(path, TRAINING, rows, {})


def test_a_full_disk_keeps_the_old_table_and_leaves_nothing_behind(disk: Path) -> None:
    write(disk / "table.parquet", ROWS[:3])
    with pytest.raises(OSError) as caught:
        write(disk / "table.parquet", ROWS)
    assert caught.value.errno == errno.ENOSPC
    assert read_table(disk / "table.parquet", TRAINING).num_rows == 3
    assert [path.name for path in disk.iterdir()] == ["table.parquet"]
    write(disk / "other.parquet", ROWS[:3])  # free the space


def test_a_read_only_folder_keeps_its_tables(disk: Path) -> None:
    write(disk / "table.parquet", ROWS[:3])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError) as caught:
        write(disk / "table.parquet", ROWS)
    assert caught.value.errno == errno.EROFS
    assert read_table(disk / "table.parquet", TRAINING).num_rows == 3


def test_a_full_disk_keeps_the_old_page(disk: Path) -> None:
    write_text(disk / "report.html", "old")
    with pytest.raises(OSError) as caught:
        write_text(disk / "report.html", "new" * 1_000_000)
    assert caught.value.errno == errno.ENOSPC
    assert [path.read_text() for path in disk.iterdir()] == ["old"]
