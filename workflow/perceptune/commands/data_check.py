"""What the import will say about the rows of a dataset, found by importing them into another folder."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.progress import Progress
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import table_writer
from perceptune.core.data.image_facts import FactsOfImages
from perceptune.stages.data.import_counts import ImportCounts
from perceptune.stages.data.import_examples import Opened, open_source
from perceptune.stages.data.row_batches import checked_batches

AT_ONCE = 32
"""Rows that are checked between two looks at the clock."""
SECONDS = 5.0
"""Time after which the rest of a dataset is left to its import."""


@dataclass
class Rows:
    """What was found in the rows of a dataset."""

    count: int = 0
    """Rows that were checked."""
    complete: bool = True
    """Whether there are no others."""
    mistake: UserError | None = None
    """What the import stops at; if there are other rows and a share of them may fail, what it may stop at."""
    left_out: str | None = None
    """The rows that the import will leave out."""
    doubts: list[str] = field(default_factory=list)
    """Warnings about boxes."""


def check_rows(name: str, block: FileDataset, table: Path) -> Rows:
    """Checks the rows of a dataset as its import will, as many as it can in `SECONDS`, and writes them to
    an `examples` table."""
    try:
        opened = open_source(block)
    except UserError as error:
        return Rows(mistake=error)
    counts = ImportCounts(opened.config, Path(block.path).name, opened.importer.orders)
    found = Rows()
    log = io.StringIO()  # of the import, which has a line for every row that cannot be used
    try:
        with redirect_stdout(log):
            _read(name, opened, counts, table, found)
            if not found.count:
                raise opened.without_rows()
            counts.check_ceiling()
    except UserError as error:
        found.mistake = error
        return found
    if counts.failures:
        found.left_out = (
            f"{len(counts.failures)} of {found.count} rows, which cannot be used\n  {counts.failures.lines}"
        )
    found.doubts = [line.removeprefix("warning: ") for line in counts.frame_lines() if line.startswith("warning: ")]
    return found


def _read(name: str, opened: Opened, counts: ImportCounts, table: Path, found: Rows) -> None:
    end = time.monotonic() + SECONDS
    images = FactsOfImages()
    with table_writer(table, EXAMPLES) as written, Progress(f"checking rows of {name}", None, "rows") as progress:
        written.lineage = {}
        rows = opened.rows()
        for first in rows:
            some = chain([first], islice(rows, AT_ONCE - 1))
            for batch in checked_batches(some, opened.config, opened.folder, opened.importer.imageless, images):
                written.write(counts.add(batch))
                found.count += len(batch)
                progress.advance(len(batch))
            if time.monotonic() > end:
                found.complete = next(rows, None) is None
                return
