"""One writer at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_writer(lock: Path, what: str) -> Iterator[None]:
    """Holds the file lock while the block runs; waits, and says so, while another process works on `what`.

    That can be the orphan of a killed run. The lock dies with its process.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        print(f"another process still works on {what}; waiting for it to end", file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def writer_if_free(lock: Path) -> Iterator[bool]:
    """Holds the file lock while the block runs if no other process does, and says whether."""
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
