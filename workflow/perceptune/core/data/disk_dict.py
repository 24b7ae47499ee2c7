"""A dictionary on disk, for what grows with a data set."""

from __future__ import annotations

import pickle
import sqlite3
from typing import Any


class DiskDict:
    """A dictionary from text to values that pickle can store, in a temporary file without a name.

    It is deleted with the object or the process. `TMPDIR` says where it is. Threads must take turns.
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA cache_size = -16000")  # kB
        self._file.execute("CREATE TABLE found (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._file.execute("BEGIN")  # and never commits: nothing has to survive

    def __contains__(self, key: str) -> bool:
        return self._stored(key) is not None

    def get(self, key: str) -> Any:
        """The value of the key; None without one."""
        row = self._stored(key)
        return None if row is None else pickle.loads(row[0])

    def __getitem__(self, key: str) -> Any:
        row = self._stored(key)
        if row is None:
            raise KeyError(key)
        return pickle.loads(row[0])

    def __setitem__(self, key: str, value: Any) -> None:
        self._file.execute("INSERT OR REPLACE INTO found VALUES (?, ?)", (_bytes(key), pickle.dumps(value)))

    def setdefault(self, key: str, value: Any) -> Any:
        """The value of the key, which is `value` if there was none."""
        row = _bytes(key), pickle.dumps(value)
        added = self._file.execute("INSERT OR IGNORE INTO found VALUES (?, ?)", row).rowcount
        return value if added else self[key]

    def add(self, key: str) -> bool:
        """Adds a key without a value; whether it is new."""
        return self._file.execute("INSERT OR IGNORE INTO found VALUES (?, NULL)", (_bytes(key),)).rowcount > 0

    def _stored(self, key: str) -> Any:
        return self._file.execute("SELECT value FROM found WHERE key = ?", (_bytes(key),)).fetchone()


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
