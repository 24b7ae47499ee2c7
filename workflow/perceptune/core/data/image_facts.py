"""Facts of images for the import: each image is read and decoded once, and not again until it changes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Generic, NamedTuple, TypeVar

from perceptune.contracts.provenance.digests import FRESH
from perceptune.core.data.images import decoded, image_bytes
from perceptune.core.data.perceptual_hash import perceptual_hash

Key = TypeVar("Key", bound=Hashable)


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


@dataclass
class KnownImages:
    """Facts from an earlier import, for files and contents that have not changed since."""

    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    """Absolute path to size, modification time (ns) and SHA-256."""
    facts: dict[str, ImageFacts] = field(default_factory=dict)
    """SHA-256 to facts."""

    @classmethod
    def read(cls, stored: Any) -> KnownImages:
        """The inverse of `stored`; nothing is known from a value of another form."""
        try:
            return cls(
                {path: (int(size), int(date), str(digest)) for path, (size, date, digest) in stored["files"].items()},
                {
                    digest: ImageFacts(digest, (int(width), int(height)), bool(turned), bytes.fromhex(one))
                    for digest, (width, height, turned, one) in stored["facts"].items()
                },
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def stored(self) -> dict[str, Any]:
        """As a JSON value."""
        facts = {one.sha256: [*one.size, one.turned, one.hash.hex()] for one in self.facts.values()}
        return {"files": self.files, "facts": facts}


class FactsOfImages:
    """Facts of images from a full decode. For all threads together, each file is read and decoded once.

    Files are told apart by path, size and modification time, images in tables by their content.
    Those that are `known` are not decoded, and known files are not even read.
    """

    def __init__(self, known: KnownImages | None = None) -> None:
        self._known = known or KnownImages()
        self._files: _Once[tuple[str, int, int]] = _Once()
        self._contents: _Once[str] = _Once()
        self._decoded: list[str] = []
        self._start = time.time_ns()

    def of(self, image: Mapping[str, Any]) -> ImageFacts:
        """The facts of an image struct. Raises `ValueError` like `open_image`."""
        if image.get("bytes") is not None:
            return self._of_content(bytes(image["bytes"]))
        try:
            facts = Path(image["path"]).stat()
        except OSError:
            return self._of_content(image_bytes(image))  # raises the reason
        key = (str(Path(image["path"]).absolute()), facts.st_size, facts.st_mtime_ns)
        return self._files.get(key, lambda: self._of_file(key, image))

    def known(self) -> KnownImages:
        """What the next import can take over. Recently changed files must be read again: their next
        change may leave the modification time as it is."""
        files = {
            path: (size, date, one.sha256)
            for (path, size, date), one in self._files.found()
            if self._start - date > FRESH
        }
        return KnownImages(files, dict(self._contents.found()))

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of decoded images and of all images, without copies."""
        return len(self._decoded), len(self._contents)

    def _of_file(self, key: tuple[str, int, int], image: Mapping[str, Any]) -> ImageFacts:
        path, *now = key
        *before, digest = self._known.files.get(path, (None, None, ""))
        if before == now and digest in self._known.facts:
            return self._contents.get(digest, lambda: self._known.facts[digest])
        return self._of_content(image_bytes(image))

    def _of_content(self, data: bytes) -> ImageFacts:
        digest = hashlib.sha256(data).hexdigest()

        def facts() -> ImageFacts:
            if digest in self._known.facts:
                return self._known.facts[digest]
            self._decoded.append(digest)
            opened, turned = decoded(data)
            return ImageFacts(digest, opened.size, turned, perceptual_hash(opened))

        return self._contents.get(digest, facts)


class _Once(Generic[Key]):
    """Image facts by key, or the reason why there are none, each computed once for all threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[Key, ImageFacts | str] = {}
        self._computed: dict[Key, Event] = {}

    def get(self, key: Key, compute: Callable[[], ImageFacts]) -> ImageFacts:
        """The facts; raises `ValueError` with the reason, also for later calls with the same key."""
        with self._lock:
            event = self._computed.get(key)
            mine = event is None and key not in self._known
            if mine:
                event = self._computed[key] = Event()
        if mine:
            self._compute(key, compute)
        elif event is not None:
            event.wait()
        found = self._known[key]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def found(self) -> Iterator[tuple[Key, ImageFacts]]:
        """The keys with facts, in no particular order."""
        return ((key, one) for key, one in self._known.items() if not isinstance(one, str))

    def __len__(self) -> int:
        return len(self._known)

    def _compute(self, key: Key, compute: Callable[[], ImageFacts]) -> None:
        found: ImageFacts | str = "the import was interrupted"
        try:
            found = compute()
        except ValueError as error:
            found = str(error)
        finally:
            with self._lock:
                self._known[key] = found
                self._computed.pop(key).set()
