"""JSON lines with rows in our own words."""

from __future__ import annotations

from perceptune.core.importers.importer import Importer, as_written

IMPORTER = Importer("jsonl", as_written, reads="jsonl")
