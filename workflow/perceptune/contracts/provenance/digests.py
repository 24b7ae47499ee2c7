"""Digests of files, and their cache."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from perceptune.contracts.files import IMAGE_SUFFIXES

FRESH = 2_000_000_000
"""Nanoseconds after a change in which another one may leave the modification time as it is. Digests
of such recent files are not cached."""
FILES_AT_ONCE = 500
TABLES = (
    "files (path PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT)",
    "notes (key PRIMARY KEY, value TEXT)",
    "images (sha256 PRIMARY KEY, read_by TEXT, facts TEXT)",  # see `core.data.image_facts`
)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path, memory: DigestMemory) -> str:
    """SHA-256 of a file, or the digest of a folder without the images in it."""
    if path.is_dir():
        return digest_of_folder(path, memory, images=False)
    return next(memory.sha256_of_files([path]))


class DigestMemory:
    """Cache of digests by path, size and modification time, in an SQLite file.

    Digests are needed at every start, and weights and images are large. Without a usable cache
    (read-only folder, damaged file) they are computed each time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The SQLite file, which may not exist yet."""
        return self._path

    def sha256_of_files(self, files: Iterable[Path | str]) -> Iterator[str]:
        """SHA-256 of each file. Files with a known path, size and modification time are not read.

        The digest of a file that cannot be read is `unreadable`.
        """
        waiting = iter(files)
        while part := list(islice(waiting, FILES_AT_ONCE)):
            with self.opened() as memory:
                digests = _digests(part, memory)
            yield from digests

    def recall(self, key: str, compute: Callable[[], Any]) -> Any:
        """The JSON value stored under `key`; computes and stores it if missing."""
        with self.opened() as memory, suppress(sqlite3.Error, ValueError):
            row = memory.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone() if memory else None
            if row:
                return json.loads(row[0])
        value = compute()
        self.store(key, value)
        return value

    def store(self, key: str, value: Any) -> None:
        """Stores a JSON value under `key`."""
        with self.opened() as memory, suppress(sqlite3.Error):
            if memory:
                memory.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, json.dumps(value)))

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection | None]:
        """The SQLite file with its tables; None if it cannot be used. Commits at the end."""
        connection = self._connected() or self._connected()  # the first attempt removes a damaged file
        if connection is None:
            yield None
            return
        with closing(connection):
            yield connection
            with suppress(sqlite3.Error):
                connection.commit()

    def _connected(self) -> sqlite3.Connection | None:
        connection = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
            for table in TABLES:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        except (OSError, sqlite3.Error) as error:
            if connection is not None:
                connection.close()
            if "not a database" in str(error):
                self._path.unlink(missing_ok=True)
            return None
        return connection


def _digests(files: Sequence[Path | str], memory: sqlite3.Connection | None) -> list[str]:
    """SHA-256 of files that are known or read; `memory` learns the latter."""
    digests, computed, now = [], [], time.time_ns()
    here = os.getcwd()  # noqa: PTH109 - `pathlib` takes longer than the rest, for tens of thousands of images
    places = [os.path.join(here, file) for file in files]  # noqa: PTH118
    known = _remembered(memory, places) if memory else {}
    for place in places:
        try:
            facts = os.stat(place)  # noqa: PTH116
            if not stat.S_ISREG(facts.st_mode):  # reading a named pipe would block forever
                raise OSError
            key = (place, facts.st_size, facts.st_mtime_ns)
            digest = known.get(key)
            digests.append(digest or sha256_of_file(Path(place)))
        except OSError:
            digests.append("unreadable")
            continue
        if not digest and now - facts.st_mtime_ns > FRESH:
            computed.append((*key, digests[-1]))
    if memory and computed:
        memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", computed)
    return digests


def _remembered(memory: sqlite3.Connection, places: Sequence[str]) -> dict[tuple[str, int, int], str]:
    """Known digests by path, size and modification time."""
    query = f"SELECT path, size, mtime, sha256 FROM files WHERE path IN ({', '.join('?' * len(places))})"
    return {(path, size, mtime): digest for path, size, mtime, digest in memory.execute(query, places)}


def digest_of_folder(folder: Path, memory: DigestMemory, *, images: bool = True) -> str:
    """Digest of the names and contents of the files in `folder`. Hidden files are ignored, and without
    `images` also image files.

    It identifies a model by content, not by path.
    """
    files = [file for file in _regular_files(folder) if images or not file.name.lower().endswith(IMAGE_SUFFIXES)]
    names = [file.relative_to(folder).as_posix() for file in files]
    return sha256_of_json(dict(zip(names, memory.sha256_of_files(files), strict=True)))


def _regular_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and its sub-folders, without hidden ones. Links to folders are not
    followed."""
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:  # these know what they are: `Path.is_file` would ask the file system
            if entry.is_dir(follow_symlinks=False):
                yield from _regular_files(Path(entry.path))
            elif entry.is_file() and not entry.name.startswith("."):
                yield Path(entry.path)
