"""Imports a dataset: checks every row, opens every image and identifies it by content."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.contracts.files import future_date
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.progress import Progress, tell
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.quarantine import check_ceiling
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.core.data.coordinate_frames import better_fit, doubt, fits, fitting
from perceptune.core.data.image_facts import FactsOfImages, ImageFacts, KnownImages
from perceptune.core.data.read_files import Files
from perceptune.core.data.row_checks import RowError, check_size, checked_row, one_line, pixel_box, shown
from perceptune.core.importers.importer import Importer, Placed, missing_shards

READ_WITH = ("imagehash", "numpy", "pillow", "scipy")
"""Packages that decide what is found in an image."""


class Probe(NamedTuple):
    """A box as written, with facts about its image."""

    place: str
    box: list[float]
    image: ImageFacts


def run(*, config: FileDataset, examples: Path, dataset: str = "", memory: Path | None = None) -> None:
    """Writes the `examples` table of a dataset.

    Images that have not changed since the last import of `dataset` are not opened again: `memory` is
    the file that holds what was found. The table is the same as without it.

    Raises `UserError` with all mistakes (the first ones in full) if more than `max_failed_share` of
    the rows are unusable; below that they are written with their reason.
    """
    source = Path(config.path)
    importer = load("importer", config.kind)
    files = Files(source, importer.reads, config.split)
    files.check()
    if date := future_date(source):
        raise UserError(
            f"dataset file `{source}` is dated in the future ({date}): Snakemake would discard a table older than it",
            "`touch` the file, or correct the clocks of this machine and its file server",
        )
    config = config.model_copy(update=_declared(config, importer))
    folder = Path(config.images) if config.images else source if source.is_dir() else source.parent
    _check_folder(folder)
    rows = list(_taken(importer.rows(files), config.max_images))
    if not rows:
        raise UserError(f"dataset file `{source}` has no rows")
    with _remembered(memory, dataset) as images:
        table, probes = _all_checked(rows, config, folder, importer.imageless, images)
    _mark_duplicates(table, [place for place, _ in rows])
    failed = [
        f"{source.name}, {place}: {row['reason']}" for (place, _), row in zip(rows, table, strict=True) if row["reason"]
    ]
    cause = _other_frame(probes, config) if failed else None
    check_ceiling(failed, len(rows), "rows cannot be used", config.max_failed_share, config.max_failed_rows, hint=cause)
    logged = (
        *(f"left out: {line}" for line in failed),
        *_lines_on_shards(files, source),
        *_frame_lines(probes, config),
    )
    for line in logged:
        (tell if line.startswith("warning: ") else print)(line)
    if failed:
        tell(f"warning: {len(failed)} of {len(rows)} rows cannot be used; their log names them")
    for line in _count_lines(rows, config, importer.published(files)):
        tell(f"{source.name} {line}")
    tell(_contents(table))
    inputs = {("data" if file == source else f"data {name}"): file for name, file in files.read.items()}
    plugins = [module_of("importer", importer.name)]
    write_table(
        examples, EXAMPLES, table, lineage("data.import_examples", config.model_dump(mode="json"), inputs, plugins)
    )


def _check_folder(folder: Path) -> None:
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


def _declared(config: FileDataset, importer: Importer) -> dict[str, Any]:
    """Settings that the format declares, unless the block overrides them."""
    return {
        "coordinates": config.coordinates or importer.coordinates or "pixels",
        "task": config.task or importer.task,
    }


def _all_checked(
    rows: list[tuple[str, Any]], config: FileDataset, folder: Path, imageless: bool, known: FactsOfImages
) -> tuple[list[dict[str, Any]], list[Probe]]:
    """The rows of the `examples` table, and all boxes with a readable image."""
    probes: list[Probe | None] = [None] * len(rows)

    def check(number: int) -> dict[str, Any]:
        place, row = rows[number]
        checked, probes[number] = _checked(place, row, config, folder, imageless, known)
        return checked

    table = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("checking examples", len(rows), "rows") as progress:
        for checked in pool.map(check, range(len(rows))):
            table.append(checked)
            progress.advance()
    return table, [probe for probe in probes if probe is not None]


@contextmanager
def _remembered(memory: Path | None, dataset: str) -> Iterator[FactsOfImages]:
    """Facts of images, known from the last import and kept for the next one. Says how many images were
    opened."""
    place, key = memory and DigestMemory(memory), f"images of {dataset}"
    read_by = [code_digest(FactsOfImages.__module__), *map(version, READ_WITH)]
    stored = place.recall(key, dict) if place else None
    same = isinstance(stored, dict) and stored.get("read_by") == read_by
    images = FactsOfImages(KnownImages.read(stored) if same else None)
    yield images
    opened, distinct = images.counts
    if distinct:
        print(f"opened {opened:,} of {distinct:,} images")
    if place:
        place.store(key, {"read_by": read_by, **images.known().stored()})


def _arrays(probes: list[Probe]) -> tuple[np.ndarray, np.ndarray]:
    boxes, sizes = [probe.box for probe in probes], [probe.image.size for probe in probes]
    return np.array(boxes, dtype=float), np.array(sizes, dtype=float)


def _other_frame(probes: list[Probe], config: FileDataset) -> str | None:
    """A hint if more boxes fit another coordinate format than the declared one."""
    if not probes:
        return None
    (boxes, sizes), declared = _arrays(probes), config.coordinates or "pixels"
    turned = np.array([probe.image.turned for probe in probes])
    upright = fits(boxes, declared, sizes)
    stored = turned & ~upright & fits(boxes, declared, sizes[:, ::-1])
    if 2 * stored.sum() > (~upright).sum():
        return (
            f"{stored.sum()} of {(~upright).sum()} boxes that do not fit their image are on images that EXIF rotates,"
            " and fit them as stored; boxes refer to the upright image"
        )
    return better_fit(boxes, declared, sizes)


def _frame_lines(probes: list[Probe], config: FileDataset) -> Iterator[str]:
    """For the log: how many boxes fit each coordinate format, and doubts about the declared one."""
    if not probes:
        return
    (boxes, sizes), declared = _arrays(probes), config.coordinates or "pixels"
    counts = ", ".join(f"`{name}` {number}" for name, number in fitting(boxes, sizes).items())
    yield f"coordinates: `{declared}`; boxes that fit (of {len(boxes)}): {counts}"
    for line in (better_fit(boxes, declared, sizes), doubt(boxes, declared, sizes)):
        if line:
            yield f"warning: {line}"
    if turned := [probe.place for probe in probes if probe.image.turned]:
        yield (
            f"warning: {len(turned)} of {len(probes)} boxes (first: {turned[0]}) are on images that are rotated"
            " by their EXIF orientation; boxes refer to the upright image, so boxes drawn on the stored pixels are wrong"
        )


def _count_lines(rows: list[tuple[str, Any]], config: FileDataset, published: Mapping[str, int]) -> Iterator[str]:
    """For the log: the number of rows per split, with the published number if there is one."""
    splits = Counter(str(row.get("split") or config.split or "train") for _, row in rows if isinstance(row, Mapping))
    whole = {"all": len(rows)} if "all" in published else {}
    for split, number in {**whole, **splits}.items():
        official = published.get(split)
        verdict = "" if official is None else ", as published" if official == number else f", {official} published"
        yield f"{split}: {number} rows{verdict}"


def _contents(table: list[dict[str, Any]]) -> str:
    """The number of examples by task, of different images and of boxes."""
    usable = [row for row in table if row["reason"] is None]
    tasks = Counter(row["task"] for row in usable)
    images = len({digest for row in usable for digest in row["image_sha256"]})
    boxes = sum(row["box"] is not None for row in usable)
    counted = ", ".join(f"{number:,} {task}" for task, number in sorted(tasks.items()))
    return f"{len(usable):,} examples ({counted}) with {images:,} different images and {boxes:,} boxes"


def _checked(
    place: str, row: Any, config: FileDataset, folder: Path, imageless: bool, known: FactsOfImages
) -> tuple[dict[str, Any], Probe | None]:
    """The row of the `examples` table, and its box as written.

    A failed row has empty columns and its reason.
    """
    probe = None
    try:
        if isinstance(row, RowError):
            raise row
        checked = checked_row(row, config, imageless)
        checked["images"] = [_located(image, folder) for image in checked["images"]]
        facts = [_facts(image, folder, known) for image in checked["images"]]
        if facts:
            check_size(row, facts[0].size, facts[0].turned)
        if checked["box"] is not None:
            probe = Probe(place, checked["box"], facts[0])
            checked["box"] = pixel_box(checked["box"], config, facts[0].size)
    except RowError as error:
        return _empty(place, str(error)), probe
    except RecursionError:  # JSON that is just shallow enough to read may be too deep to write
        return _empty(place, "nested too deeply"), probe
    example_id = checked.pop("example_id") or place.replace(" ", "-")
    columns = {
        "image_sha256": [one.sha256 for one in facts],
        "image_sizes": [list(one.size) for one in facts],
        "image_hashes": [one.hash for one in facts],
    }
    return {"example_id": example_id, **checked, **columns, "reason": None}, probe


def _located(image: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The image with its path, relative to the working directory if it is inside.

    Raises `RowError` for a path outside of `folder`.
    """
    if image["bytes"] is not None:
        return {"bytes": bytes(image["bytes"]), "path": image["path"]}
    name = image["path"]
    path = folder / name
    try:
        target = path.resolve()
        inside = target.is_relative_to(folder.resolve())
    except (ValueError, UnicodeError):  # a null character or an unpaired surrogate
        raise RowError(f"image {shown(name)} is not a valid file name") from None
    except RuntimeError:
        raise RowError(f"image `{one_line(name)}`: a circular symbolic link") from None
    except OSError as error:
        raise RowError(f"image `{one_line(name)}`: the file cannot be read: {error.strerror}") from None
    if not inside:
        raise RowError(f"image `{one_line(name)}` {_outside(name, target, folder)}")
    try:
        path = path.absolute().relative_to(Path.cwd())
    except ValueError:
        path = path.absolute()
    return {"bytes": None, "path": str(path)}


def _outside(name: str, target: Path, folder: Path) -> str:
    """Why an image is outside of its folder: its name leads there, or a link in its path."""
    if (folder / name).absolute().is_relative_to(folder.absolute()) and ".." not in Path(name).parts:
        return (
            f"is a link to `{one_line(target)}`, outside of the image folder `{folder}`, expected a file inside it:"
            " a copy, or a hard link (`cp -rlL`)"
        )
    return f"leaves the image folder `{folder}`, expected a path inside; key `images` sets the folder"


def _facts(image: dict[str, Any], folder: Path, known: FactsOfImages) -> ImageFacts:
    try:
        return known.of(image)
    except ValueError as error:
        if image["path"] is None:
            raise RowError(f"image (in the table): {error}") from None
        path = Path(image["path"])
        name = path.name
        if path.absolute().is_relative_to(folder.absolute()):
            name = path.absolute().relative_to(folder.absolute()).as_posix()
        hint = _hint_of_name(path, name) if image["bytes"] is None else ""
        raise RowError(f"image `{one_line(name)}`: {error}, looked in `{folder}`{hint}") from None


def _hint_of_name(path: Path, name: str) -> str:
    """Why an image that does not exist may not have been found; empty if it exists, or if unknown."""
    if os.path.lexists(path):
        return ""
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, str(path))
        if other != str(path) and os.path.lexists(other):
            return f"; a file whose name looks the same, in Unicode form {form}, exists: rename it, or write that form"
    if name.startswith("~"):
        return "; `~` is not expanded"
    return "; expected `/` between folders" if "\\" in name else ""


def _mark_duplicates(table: list[dict[str, Any]], places: list[str]) -> None:
    """Marks rows that repeat an earlier id as failed."""
    first: dict[str, str] = {}
    for place, row in zip(places, table, strict=True):
        if row["reason"] is None and first.setdefault(row["example_id"], place) != place:
            original = first[row["example_id"]]
            identity = shown(row["example_id"])
            row.update(_empty(place, f"`id` {identity} was already used in {original}, expected unique ids"))


def _empty(place: str, reason: str) -> dict[str, Any]:
    return {
        "example_id": place.replace(" ", "-"), "task": "", "question": "", "images": [], "image_sha256": [],
        "image_sizes": [], "image_hashes": [], "target": None, "box": None, "split": "", "source": None, "reason": reason,
    }  # fmt: skip
