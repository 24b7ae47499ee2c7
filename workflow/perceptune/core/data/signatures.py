"""Recognises files by their first bytes that are neither data nor images."""

from __future__ import annotations

import re
from typing import NamedTuple

START = 1024
"""Number of bytes that `mistaken` looks at."""


class Mistaken(NamedTuple):
    """A file that cannot be read as it is."""

    what: str
    """What it is, for a message: `a Git LFS pointer`."""
    hint: str
    """How to make a readable file of it."""


GIT_LFS = Mistaken("a Git LFS pointer in place of the file", "download the file: `git lfs pull` in its repository")
_UNPACK = "unpack it and give the path of the unpacked file"
EXCEL = Mistaken("a zip archive or an Excel workbook", _UNPACK)
_UTF8 = "convert it to UTF-8: `iconv -f UTF-16 -t UTF-8 <file> > <new file>`; in PowerShell, `Out-File -Encoding utf8`"
_MAGIC = {
    b"version https://git-lfs.github.com/spec/": GIT_LFS,
    b"\x1f\x8b": Mistaken("a gzip archive", _UNPACK),
    b"BZh": Mistaken("a bzip2 archive", _UNPACK),
    b"\xfd7zXZ\0": Mistaken("an xz archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": Mistaken("a Zstandard archive", _UNPACK),
    b"PK\x03\x04": EXCEL,
    b"\xff\xfe": Mistaken("UTF-16 text", _UTF8),
    b"\xfe\xff": Mistaken("UTF-16 text", _UTF8),
}
_CSV = Mistaken("CSV, not JSON", "set `kind: csv`, or name the file `*.csv`")
_CELL = re.compile(r'\s*"?[\w .#/-]{1,60}"?\s*')
"""A column name of a CSV file."""


def mistaken(start: bytes) -> Mistaken | None:
    """What the file is, if its first bytes exclude data and images; None otherwise."""
    return next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)


def mistaken_for_json(start: bytes) -> Mistaken | None:
    """What the file is, if its first line excludes JSON; None otherwise."""
    if start.startswith(b"PAR1"):
        return Mistaken("a Parquet file, not JSON", "set `kind: parquet`, or name the file `*.parquet`")
    header = start.decode("utf-8-sig", errors="replace").lstrip().partition("\n")[0].rstrip("\r")
    for separator in (",", ";", "\t"):
        cells = header.split(separator)
        if len(cells) > 1 and all(_CELL.fullmatch(cell) for cell in cells):
            return _CSV
    return None
