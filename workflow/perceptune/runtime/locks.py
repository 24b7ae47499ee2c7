"""File locks: one writer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from perceptune.contracts.progress import tell


@contextmanager
def only_writer(lock: Path, what: str) -> Iterator[None]:
    """Holds the file lock while the block runs; reports if it must wait for `what`.

    The other process may be the orphan of a killed run. The lock is released when its process dies.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        tell(f"another process is still writing {what}; waiting for it to finish")
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def writer_if_free(lock: Path) -> Iterator[bool]:
    """Holds the file lock while the block runs, if it is free; yields whether it is held."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()
