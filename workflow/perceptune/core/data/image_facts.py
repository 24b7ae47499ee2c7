"""Facts of images for the import: each image is read and decoded once, and not again until it changes.

They are on disk, both those of this import and those of earlier ones: there may be millions.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, RLock
from typing import Any, NamedTuple

from perceptune.contracts.provenance.digests import FRESH
from perceptune.core.data.disk_dict import DiskDict
from perceptune.core.data.images import decoded, image_bytes
from perceptune.core.data.perceptual_hash import perceptual_hash

WRITTEN_AT_ONCE = 1000
"""Facts after which those for later imports are written."""

UNUSABLE = (sqlite3.Error, UnicodeError)
"""Raised for a damaged or locked file, and for a path that is not valid Unicode."""
FileKey = tuple[str, int, int]
"""Absolute path, size and modification time (ns) of a file."""


class ImageFacts(NamedTuple):
    """Properties of an image that could be opened."""

    sha256: str
    """Digest of the encoded file, hexadecimal."""
    size: tuple[int, int]
    """Width and height of the upright image, in pixels."""
    turned: bool
    """Whether it is stored rotated or mirrored, according to EXIF."""
    hash: bytes
    """See `perceptual_hash`."""


class KnownImages:
    """Facts from earlier imports, in the file of a `DigestMemory`; nothing without a usable file.

    Only facts that the same code and packages found count; `read_by` stands for these.
    """

    def __init__(self, file: sqlite3.Connection | None = None, read_by: str = "") -> None:
        self._file, self._read_by = file, read_by
        self._lock = RLock()
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []

    def of_file(self, key: FileKey) -> ImageFacts | None:
        """The facts of a file that has not changed since."""
        found = self._row("SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime = ?", *key)
        return self.of_content(found[0]) if found else None

    def of_content(self, digest: str) -> ImageFacts | None:
        """The facts of an image with this SHA-256."""
        found = self._row("SELECT facts FROM images WHERE sha256 = ? AND read_by = ?", digest, self._read_by)
        if found is None:
            return None
        try:
            width, height, turned, one = json.loads(found[0])
            return ImageFacts(digest, (int(width), int(height)), bool(turned), bytes.fromhex(one))
        except (TypeError, ValueError):  # damaged
            return None

    def add_file(self, key: FileKey, digest: str) -> None:
        """Remembers the content of a file."""
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", *key, digest)

    def add_content(self, facts: ImageFacts) -> None:
        """Remembers what was found in an image."""
        stored = json.dumps([*facts.size, facts.turned, facts.hash.hex()])
        self._write("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", facts.sha256, self._read_by, stored)

    def flush(self) -> None:
        """Writes what was added."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if self._file is None:
                return
            for statement, values in waiting:
                with suppress(*UNUSABLE):
                    self._file.execute(statement, values)
            with suppress(*UNUSABLE):
                self._file.commit()  # so that other processes can write

    def _row(self, query: str, *values: Any) -> Any:
        if self._file is not None:
            with self._lock, suppress(*UNUSABLE):
                return self._file.execute(query, values).fetchone()
        return None

    def _write(self, statement: str, *values: Any) -> None:
        with self._lock:
            self._waiting.append((statement, values))
            if len(self._waiting) >= WRITTEN_AT_ONCE:
                self.flush()


class FactsOfImages:
    """Facts of images from a full decode. For all threads together, each file is read and decoded once.

    Files are told apart by path, size and modification time, images in tables by their content.
    Those that are `known` are not decoded, and known files are not even read.
    """

    def __init__(self, known: KnownImages | None = None) -> None:
        self._known = known or KnownImages()
        self._files, self._contents = _Once(), _Once()
        self._decoded: list[None] = []
        self._start = time.time_ns()

    def of(self, image: Mapping[str, Any]) -> ImageFacts:
        """The facts of an image struct. Raises `ValueError` like `open_image`."""
        if image.get("bytes") is not None:
            return self._of_content(bytes(image["bytes"]))
        path = os.path.join(os.getcwd(), image["path"])  # noqa: PTH109, PTH118 - once per row, so without `pathlib`
        try:
            facts = os.stat(path)  # noqa: PTH116
        except OSError:
            return self._of_content(image_bytes(image))  # raises the reason
        key = (path, facts.st_size, facts.st_mtime_ns)
        return self._files.get("\0".join(map(str, key)), lambda: self._of_file(key, image))

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of decoded images and of all images, without copies."""
        return len(self._decoded), len(self._contents)

    def _of_file(self, key: FileKey, image: Mapping[str, Any]) -> ImageFacts:
        if known := self._known.of_file(key):
            return self._contents.get(known.sha256, lambda: known)
        found = self._of_content(image_bytes(image))
        if self._start - key[2] > FRESH:  # the next change may leave a newer modification time as it is
            self._known.add_file(key, found.sha256)
        return found

    def _of_content(self, data: bytes) -> ImageFacts:
        digest = hashlib.sha256(data).hexdigest()

        def facts() -> ImageFacts:
            if known := self._known.of_content(digest):
                return known
            self._decoded.append(None)
            opened, turned = decoded(data)
            found = ImageFacts(digest, opened.size, turned, perceptual_hash(opened))
            self._known.add_content(found)
            return found

        return self._contents.get(digest, facts)


class _Once:
    """Image facts by key, or the reason why there are none, each computed once for all threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._found = DiskDict()
        self._count = 0
        self._computed: dict[str, Event] = {}

    def get(self, key: str, compute: Callable[[], ImageFacts]) -> ImageFacts:
        """The facts; raises `ValueError` with the reason, also for later calls with the same key."""
        with self._lock:
            found: tuple[Any, ...] | str | None = self._found.get(key)
            event = self._computed.get(key)
            mine = found is None and event is None
            if mine:
                event = self._computed[key] = Event()
        if mine:
            found = self._compute(key, compute)
        elif found is None and event is not None:
            event.wait()
            with self._lock:
                found = self._found[key]
        if isinstance(found, str):
            raise ValueError(found)
        return ImageFacts(*found)  # type: ignore[misc]

    def __len__(self) -> int:
        return self._count

    def _compute(self, key: str, compute: Callable[[], ImageFacts]) -> tuple[Any, ...] | str:
        found: tuple[Any, ...] | str = "the import was interrupted"
        try:
            found = tuple(compute())
        except ValueError as error:
            found = str(error)
        finally:
            with self._lock:
                self._found[key] = found
                self._count += 1
                self._computed.pop(key).set()
        return found
