"""Facts of images for the import: each file is read and decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from threading import Event, Lock
from typing import Any, Generic, NamedTuple, TypeVar

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


class FactsOfImages:
    """Facts of images from a full decode. For all threads together, each file is read and decoded once.

    Files are told apart by path, size and modification time, images in tables by their content.
    """

    def __init__(self) -> None:
        self._files: _Once[tuple[str, int, int]] = _Once()
        self._contents: _Once[str] = _Once()

    def of(self, image: Mapping[str, Any]) -> ImageFacts:
        """The facts of an image struct. Raises `ValueError` like `open_image`."""
        if image.get("bytes") is not None:
            return self._of_content(bytes(image["bytes"]))
        try:
            facts = Path(image["path"]).stat()
        except OSError:
            return self._of_content(image_bytes(image))  # raises the reason
        key = (str(image["path"]), facts.st_size, facts.st_mtime_ns)
        return self._files.get(key, lambda: self._of_content(image_bytes(image)))

    def _of_content(self, data: bytes) -> ImageFacts:
        digest = hashlib.sha256(data).hexdigest()

        def facts() -> ImageFacts:
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
