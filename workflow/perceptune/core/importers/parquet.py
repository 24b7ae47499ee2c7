"""Parquet with rows in our own words."""

from __future__ import annotations

from perceptune.core.importers.importer import Importer, as_written

PARQUET = Importer("parquet", as_written, reads="parquet")
