"""Digests by content, and their cache."""

import os
import time
from pathlib import Path

import pytest
from perceptune.contracts.provenance import digests
from perceptune.contracts.provenance.digests import DigestMemory, digest_of_folder, sha256_of_file


@pytest.fixture
def memory(tmp_path: Path) -> DigestMemory:
    return DigestMemory(tmp_path / "hidden" / "memory.sqlite")


def written(path: Path, content: bytes, seconds_ago: float = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(0, time.time_ns() - int(seconds_ago * 1e9)))
    return path


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Records the files that are read."""
    read: list[Path] = []
    monkeypatch.setattr(digests, "sha256_of_file", lambda path: read.append(path) or sha256_of_file(path))
    return read


def test_a_model_is_its_contents_not_its_path(tmp_path: Path, memory: DigestMemory) -> None:
    for name in ("a", "b"):
        written(tmp_path / name / "weights", b"1" * 100)
    assert digest_of_folder(tmp_path / "a", memory) == digest_of_folder(tmp_path / "b", memory)
    written(tmp_path / "b" / "weights", b"2" * 100)
    assert digest_of_folder(tmp_path / "a", memory) != digest_of_folder(tmp_path / "b", memory)


def test_a_file_is_read_once_and_again_when_swapped(
    tmp_path: Path, memory: DigestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "model" / "weights", b"1" * 100, seconds_ago=20)
    first = digest_of_folder(file.parent, memory)
    read = hashed(monkeypatch)
    assert digest_of_folder(file.parent, memory) == first
    assert read == []
    written(file, b"2" * 100)  # the same size
    assert digest_of_folder(file.parent, memory) != first
    assert read == [file]


def test_a_file_that_was_written_just_now_is_not_trusted_yet(
    tmp_path: Path, memory: DigestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "a", b"1", seconds_ago=0)
    list(memory.sha256_of_files([file]))
    read = hashed(monkeypatch)
    list(memory.sha256_of_files([file]))
    assert read == [file]


def test_missing_files_and_pipes_are_unreadable_and_do_not_block(tmp_path: Path, memory: DigestMemory) -> None:
    os.mkfifo(tmp_path / "pipe")
    digests = memory.sha256_of_files([tmp_path / "pipe", tmp_path / "absent", tmp_path])
    assert list(digests) == ["unreadable"] * 3


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_damaged_memory_is_only_slower(tmp_path: Path, content: bytes) -> None:
    memory = DigestMemory(written(tmp_path / "memory.sqlite", content))
    file = written(tmp_path / "a", b"1")
    for _ in range(2):
        assert list(memory.sha256_of_files([file])) == [sha256_of_file(file)]
        assert memory.recall("key", lambda: [1, 2]) == [1, 2]


def test_a_note_is_computed_once(memory: DigestMemory) -> None:
    computed: list[int] = []
    for _ in range(2):
        assert memory.recall("key", lambda: computed.append(1) or ["a"]) == ["a"]
    assert computed == [1]
