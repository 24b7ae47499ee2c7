"""Folders that appear under their names only once they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into, which replaces `folder` on success and is removed on failure.

    Removes what killed processes have left of earlier ones: that can be as large as a model.
    """
    start = f".{folder.name}."
    temporary = folder.with_name(f"{start}{os.getpid()}")
    for left in folder.parent.glob(".*"):
        if left.name.startswith(start) and left.name.removeprefix(start).isdigit():
            shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
