"""Imports a dataset: checks every row, opens every image and identifies it by content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.contracts.files import future_date
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.progress import Progress, tell
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import DigestMemory, sha256_of_json
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import table_writer
from perceptune.core.data.image_facts import FactsOfImages, KnownImages
from perceptune.core.data.read_files import Files
from perceptune.core.importers.importer import Importer, Placed, missing_shards
from perceptune.core.importers.sources import source_of
from perceptune.stages.data.import_counts import ImportCounts
from perceptune.stages.data.row_batches import checked_batches

READ_WITH = ("imagehash", "numpy", "pillow", "scipy")
"""Packages that decide what is found in an image."""


def run(*, config: FileDataset, examples: Path, memory: Path | None = None) -> None:
    """Writes the `examples` table of a dataset.

    Rows are read, checked and written in batches, so that memory does not depend on their number.
    Images that have not changed since an earlier import are not opened again: `memory` is the file
    that holds what was found. The table is the same as without it.

    Raises `UserError` with all mistakes (the first ones in full) if more than `max_failed_share` of
    the rows are unusable; below that they are written with their reason.
    """
    opened = open_source(config)
    config, importer, files, folder = opened
    source = Path(config.path)
    counts = ImportCounts(config, source.name, importer.orders)
    with table_writer(examples, EXAMPLES) as table:
        with _remembered(memory) as images, Progress("checking examples", None, "rows") as progress:
            for batch in checked_batches(opened.rows(), config, folder, importer.imageless, images):
                table.write(counts.add(batch))
                progress.advance(len(batch))
        if not table.rows:
            raise opened.without_rows()
        counts.check_ceiling()
        for line in files.notes:
            tell(f"{source.name}: {line}")
        for line in (*_lines_on_shards(files, source), *counts.frame_lines()):
            (tell if line.startswith("warning: ") else print)(line)
        if failed := len(counts.failures):
            tell(f"warning: {failed} of {table.rows} rows cannot be used; their log names them")
        for line in counts.split_lines(importer.published(files)):
            tell(f"{source.name} {line}")
        tell(counts.contents())
        inputs = {("data" if file == source else f"data {name}"): file for name, file in files.read.items()}
        plugins = [module_of("importer", importer.name)]
        table.lineage = lineage("data.import_examples", config.model_dump(mode="json"), inputs, plugins)


class Opened(NamedTuple):
    """A dataset whose rows can be read."""

    config: FileDataset
    """The block with the settings that its format declares."""
    importer: Importer
    files: Files
    folder: Path
    """The folder that image paths are relative to."""

    def rows(self) -> Iterator[Placed]:
        """The rows, without those that have too many images."""
        return _taken(self.importer.rows(self.files), self.config.max_images)

    def without_rows(self) -> UserError:
        """The error for a dataset without any row."""
        return UserError(f"dataset `{self.config.path}` has no rows", "; ".join(self.files.notes) or None)


def open_source(config: FileDataset) -> Opened:
    """Raises `UserError` for a file or folder that cannot be read, or that is dated in the future."""
    source = Path(config.path)
    importer = load("importer", config.kind)
    files = source_of(config, importer)
    files.check()
    if date := future_date(source):
        raise UserError(
            f"dataset file `{source}` is dated in the future ({date}): Snakemake would discard a table older than it",
            "`touch` the file, or correct the clocks of this machine and its file server",
        )
    folder = Path(config.images) if config.images else source if source.is_dir() else source.parent
    check_folder(folder)
    return Opened(config.model_copy(update=declared(config, importer)), importer, files, folder)


def check_folder(folder: Path) -> None:
    """Raises `UserError` if the image folder is not a directory."""
    try:
        if folder.is_dir():
            return
        what = "is a file" if folder.exists() else "does not exist"
    except OSError as error:
        what = f"cannot be reached: {error.strerror}"
    raise UserError(
        f"key `images` of the dataset: `{folder}` {what}, expected the directory that image paths are relative to"
    )


def _lines_on_shards(files: Files, source: Path) -> Iterator[str]:
    """For the log: numbered files missing from a folder, on purpose or by accident."""
    missing = missing_shards(files.read) if source.is_dir() else []
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        yield f"warning: `{source.name}` is missing {len(missing)} of the files that its shard names count: {listed}"


def _taken(rows: Iterator[Placed], most: int | None) -> Iterator[Placed]:
    """The rows that do not have too many images."""
    passed = 0
    for place, row in rows:
        if most is not None and isinstance(row, dict) and _number_of_images(row) > most:
            passed += 1
        else:
            yield place, row
    if passed:
        print(f"{passed} rows with more than {most} images are left out")


def _number_of_images(row: Mapping[str, Any]) -> int:
    images = row.get("images")
    return len(images) if isinstance(images, list) else 1


def declared(config: FileDataset, importer: Importer) -> dict[str, Any]:
    """Settings that the format declares, unless the block overrides them."""
    return {
        "coordinates": config.coordinates or importer.coordinates or "pixels",
        "boxes": config.boxes or importer.boxes or "xyxy",
        "task": config.task or importer.task,
    }


@contextmanager
def _remembered(memory: Path | None) -> Iterator[FactsOfImages]:
    """Facts of images, known from earlier imports and kept for later ones. Says how many images were
    opened."""
    read_by = sha256_of_json([code_digest(FactsOfImages.__module__), *map(version, READ_WITH)])
    with DigestMemory(memory).opened() if memory else nullcontext() as file:
        known = KnownImages(file, read_by)
        images = FactsOfImages(known)
        try:
            yield images
        finally:
            known.flush()
            opened, distinct = images.counts
            if distinct:
                print(f"opened {opened:,} of {distinct:,} images")
