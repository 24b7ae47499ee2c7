"""Parquet, a file or a folder of files, with rows in perceptune's own format."""

from __future__ import annotations

from perceptune.core.importers.importer import Importer, each

IMPORTER = Importer("parquet", each(dict), boxes="xyxy", reads="parquet")
