"""A folder written by `datasets.save_to_disk` with rows in perceptune's own format."""

from __future__ import annotations

from perceptune.core.importers.importer import Importer, as_written

IMPORTER = Importer("hf", as_written, boxes="xyxy", reads="hf")
