"""Journal of finished answers: small files that are kept until the declared table is complete.

Snakemake deletes the declared outputs of a job that failed or was killed. Answers are kept here,
outside of them, and are never sampled twice.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.contracts.tables.io import Rows, read_lineage, write_table
from perceptune.contracts.tables.journal import JOURNAL
from perceptune.contracts.tables.responses import RESPONSES

FINGERPRINT = "fingerprint"
"""The parameter in the lineage of a table of responses that holds its journal's fingerprint."""


PIECES = 4
"""Row groups in memory at once."""


class Journal:
    """The journal of one policy's answers to one table of requests, shared by any number of shards.

    `fingerprint` identifies everything that affects an answer apart from the request itself
    (weights, settings, code); answers with another fingerprint are in another folder and are
    ignored. `finished` is the table of an earlier run, whose answers to unchanged requests are
    taken over if it has the same fingerprint.
    """

    def __init__(self, folder: Path, fingerprint: str, finished: Path | None = None) -> None:
        self.folder = folder / fingerprint[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fingerprint, self.finished = fingerprint, finished
        self._pieces: list[tuple[Path, int]] = []  # file and row group
        self._places = pl.DataFrame(schema={"key": pl.String, "piece": pl.Int32})
        self._read = lru_cache(PIECES)(self._piece)

    def committed(self) -> pl.Series:
        """The keys of the requests that have answers now, which `answers` can then read.

        An unreadable file (full disk, crashed machine) is removed; its answers will be sampled
        again.
        """
        self._pieces, places = [], []
        self._read.cache_clear()
        for path in [*sorted(self.folder.glob("*.parquet")), *self._earlier()]:
            try:
                groups = map(_answered, self._rows(path).groups())
                found = [pl.DataFrame({"key": group["key"].unique()}) for group in groups]
            except UserError as error:
                print(f"{error.args[0]}; its answers will be sampled again", file=sys.stderr, flush=True)
                if path != self.finished:
                    path.unlink(missing_ok=True)
                continue
            for number, keys in enumerate(found):
                places.append(keys.with_columns(piece=pl.lit(len(self._pieces), pl.Int32)))
                self._pieces.append((path, number))
        self._places = pl.concat([self._places.clear(), *places])
        return self._places["key"].unique()

    def answers(self, keys: pl.Series) -> pl.DataFrame:
        """The answers to requests with these keys: a `journal` table without duplicates.

        Requests that follow each other are cheap to read together.
        """
        wanted = pl.DataFrame({"key": keys}, schema={"key": pl.String})
        pieces = self._places.join(wanted, "key", "semi")["piece"].unique().sort()
        found = [self._read(piece).join(wanted, "key", "semi") for piece in pieces]
        empty = pl.DataFrame(pl.from_arrow(JOURNAL.schema.empty_table()))
        return pl.concat([empty, *found]).unique(["key", "sample_index"], maintain_order=True)

    def _piece(self, number: int) -> pl.DataFrame:
        path, group = self._pieces[number]
        return _answered(self._rows(path).group(group))

    def _rows(self, path: Path) -> Rows:
        """A file of the journal, or the finished table."""
        return Rows(path, RESPONSES if path == self.finished else JOURNAL, JOURNAL.columns)

    def _earlier(self) -> list[Path]:
        """The finished table, if it has the same fingerprint."""
        if self.finished is None or not self.finished.exists():
            return []
        try:
            same = read_lineage(self.finished).get("parameters", {}).get(FINGERPRINT) == self.fingerprint
        except UserError as error:
            print(f"{error.args[0]}; its answers will be sampled again", file=sys.stderr, flush=True)
            return []
        return [self.finished] if same else []

    def commit(self, rows: list[dict[str, Any]]) -> None:
        """Stores finished answers durably: once this returns, they survive a crash of the
        machine.
        """
        if not rows:
            return
        name = sha256_of_json(sorted({row["key"] for row in rows}))[:16]
        write_table(self.folder / f"{name}.parquet", JOURNAL, rows, {"stage": "sampling.responses"})


def _answered(rows: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(rows)).filter(pl.col("text").is_not_null())


def key_of(request: Mapping[str, Any], image_sha256: list[str]) -> str:
    """Digest of everything in a request, with images by content."""
    return sha256_of_json([dict(request), image_sha256])
