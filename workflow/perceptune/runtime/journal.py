"""Journal of finished answers: small files that are kept until the declared table is complete.

Snakemake deletes the declared outputs of a job that failed or was killed. Answers are kept here,
outside of them, and are never sampled twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_json
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.journal import JOURNAL
from perceptune.contracts.tables.responses import RESPONSES

FINGERPRINT = "fingerprint"
"""The parameter in the lineage of a table of responses that holds its journal's fingerprint."""


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

    def answers(self, keys: Iterable[str]) -> pl.DataFrame:
        """The committed answers to requests with these keys: a `journal` table without duplicates.

        An unreadable file (full disk, crashed machine) is removed; its answers will be sampled
        again.
        """
        parts = []
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                parts.append(pl.DataFrame(pl.from_arrow(read_table(path, JOURNAL))))
            except UserError as error:
                print(f"{error.args[0]}; its answers will be sampled again", file=sys.stderr, flush=True)
                path.unlink(missing_ok=True)
        parts += self._earlier()
        if not parts:
            return pl.DataFrame(pl.from_arrow(JOURNAL.schema.empty_table()))
        wanted = pl.DataFrame({"key": list(keys)}, schema={"key": pl.String})
        return pl.concat(parts).join(wanted, "key", "semi").unique(["key", "sample_index"], maintain_order=True)

    def _earlier(self) -> list[pl.DataFrame]:
        if self.finished is None or not self.finished.exists():
            return []
        try:
            if read_lineage(self.finished).get("parameters", {}).get(FINGERPRINT) != self.fingerprint:
                return []
            table = read_table(self.finished, RESPONSES)
        except UserError as error:
            print(f"{error.args[0]}; its answers will be sampled again", file=sys.stderr, flush=True)
            return []
        answered = pl.DataFrame(pl.from_arrow(table)).filter(pl.col("text").is_not_null())
        return [answered.select(JOURNAL.schema.names)]

    def commit(self, rows: list[dict[str, Any]]) -> None:
        """Stores finished answers durably: once this returns, they survive a crash of the
        machine.
        """
        if not rows:
            return
        name = sha256_of_json(sorted({row["key"] for row in rows}))[:16]
        write_table(self.folder / f"{name}.parquet", JOURNAL, rows, {"stage": "sampling.responses"})


def key_of(request: Mapping[str, Any], image_sha256: list[str]) -> str:
    """Digest of everything in a request, with images by content."""
    return sha256_of_json([dict(request), image_sha256])
