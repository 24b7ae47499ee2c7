"""Formats of data sets by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.importers.hf import HF
from perceptune.core.importers.importer import Importer
from perceptune.core.importers.jsonl import JSONL
from perceptune.core.importers.parquet import PARQUET

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        HF,
        JSONL,
        PARQUET,
    )
}
