"""Collects the metrics of all policies in one table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS


def run(*, metrics: list[Path], collected: Path) -> None:
    """Writes `collected`, the rows of all `metrics` tables in the given order; none without experiments."""
    table = pa.concat_tables([METRICS.schema.empty_table(), *(read_table(path, METRICS) for path in metrics)])
    inputs = {path.stem: path for path in metrics}
    write_table(collected, METRICS, table, lineage("evaluation.collect", {}, inputs))
