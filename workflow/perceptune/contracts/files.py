"""Atomic writes: files appear under their names only once they are complete."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

SKEW = 5.0
"""Seconds by which clocks of a file server and this machine may differ."""
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How names of image files end, in lower case: what tells them from other files in a folder."""


def future_date(path: Path) -> str | None:
    """The modification time of a file or folder as local time if it lies in the future, otherwise
    None. Snakemake refuses outputs that are older than their inputs."""
    try:
        date = path.stat().st_mtime
    except OSError:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(date)) if date > time.time() + SKEW else None


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces `path` on success and is removed on failure.

    It is created in the folder of `path` (made if needed), synced with fsync, then renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, atomically."""
    with appearing(path) as file:
        file.write(text.encode())
