"""JSON lines with rows in perceptune's own format."""

from __future__ import annotations

from perceptune.core.importers.importer import Importer, as_written

IMPORTER = Importer("jsonl", as_written, boxes="xyxy", reads="jsonl")
