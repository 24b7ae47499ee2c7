"""Check the rows of a dataset, batch by batch: memory depends on the batch, not on the dataset."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from perceptune.contracts.config import FileDataset
from perceptune.core.data.image_facts import FactsOfImages, ImageFacts
from perceptune.core.data.row_checks import RowError, check_size, checked_row, one_line, pixel_box, shown
from perceptune.core.importers.importer import Placed

ROWS_AT_ONCE = 1000
BYTES_AT_ONCE = 2**22
"""Rows that are checked at once, and bytes of their texts and images."""
LOST = "the file does not exist, looked in"
"""Part of the reason for a row whose image is not in the folder."""
MOST_LISTED = 2**17
"""Names in a folder among which a missing one is looked for."""
KNOWN_NAMES = 2**16
"""File names whose places are kept: many rows may share an image."""


class Checked(NamedTuple):
    """A row of the `examples` table, with what is counted of it."""

    place: str
    split: str | None
    """As read, also of a row that cannot be used; None if it is not an object."""
    row: dict[str, Any]
    """A failed row has empty columns and its reason."""
    box: list[float] | None
    """As written, if the image could be opened."""
    image: ImageFacts | None
    """The image of the box."""


def checked_batches(
    rows: Iterator[Placed], config: FileDataset, folder: Path, imageless: bool, known: FactsOfImages
) -> Iterator[list[Checked]]:
    """The rows of the `examples` table in batches, each checked by all cores."""
    names = _Names(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in _batches(rows):
            yield list(pool.map(lambda placed: _checked(placed, config, names, imageless, known), batch))


def is_test(sha256: str, share: float) -> bool:
    """Whether an image is one of the share (`test_share`) that is held out for tests."""
    return int(sha256[:16], 16) < share * 2**64


def failed_row(place: str, reason: str) -> dict[str, Any]:
    """The row of the `examples` table for one that cannot be used."""
    return {
        "example_id": place.replace(" ", "-"), "task": "", "question": "", "images": [], "image_sha256": [],
        "image_sizes": [], "image_hashes": [], "target": None, "box": None, "split": "", "source": None, "reason": reason,
    }  # fmt: skip


def _batches(rows: Iterator[Placed]) -> Iterator[list[Placed]]:
    """Consecutive rows, as many as are checked at once."""
    batch: list[Placed] = []
    size = 0
    for place, row in rows:
        batch.append((place, row))
        size += _size(row)
        if len(batch) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(row: Any) -> int:
    """About how many bytes the texts and images in a row have."""
    size, waiting = 0, [row]
    while waiting:  # no recursion: rows may be nested deeply
        value = waiting.pop()
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return size


def _checked(placed: Placed, config: FileDataset, names: _Names, imageless: bool, known: FactsOfImages) -> Checked:
    place, row = placed
    box, image, found = None, None, None
    split = str(row.get("split") or config.split or "train").strip() if isinstance(row, Mapping) else None
    try:
        if isinstance(row, RowError):
            raise row
        found = checked_row(row, config, imageless)
        found["images"] = [names.located(one) for one in found["images"]]
        facts = [_facts(one, names.folder, known) for one in found["images"]]
        if facts:
            check_size(row, facts[0].size, facts[0].turned)
        if facts and found["split"] == "train" and is_test(facts[0].sha256, config.test_share or 0):
            split = found["split"] = "test"
        if found["box"] is not None:
            box, image = found["box"], facts[0]
            found["box"] = pixel_box(box, config, image.size)
    except RowError as error:
        return Checked(place, split, failed_row(place, str(error)), box, image)
    except RecursionError:  # JSON that is just shallow enough to read may be too deep to write
        return Checked(place, split, failed_row(place, "nested too deeply"), box, image)
    example_id = found.pop("example_id") or place.replace(" ", "-")
    columns = {
        "image_sha256": [one.sha256 for one in facts],
        "image_sizes": [list(one.size) for one in facts],
        "image_hashes": [one.hash for one in facts],
    }
    return Checked(place, split, {"example_id": example_id, **found, **columns, "reason": None}, box, image)


class _Names:
    """Where the image files of a folder are, by the name that rows give them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inside = folder.resolve()
        self._path = lru_cache(KNOWN_NAMES)(self._path_of)

    def located(self, image: dict[str, Any]) -> dict[str, Any]:
        """The image with its path, relative to the working directory if it is inside.

        Raises `RowError` for a path outside of the folder.
        """
        if image["bytes"] is not None:
            return {"bytes": bytes(image["bytes"]), "path": image["path"]}
        return {"bytes": None, "path": self._path(image["path"])}

    def _path_of(self, name: str) -> str:
        path = self.folder / name
        try:
            target = path.resolve()
            inside = target.is_relative_to(self._inside)
        except (ValueError, UnicodeError):  # a null character or an unpaired surrogate
            raise RowError(f"image {shown(name)} is not a valid file name") from None
        except RuntimeError:
            raise RowError(f"image `{one_line(name)}`: a circular symbolic link") from None
        except OSError as error:
            raise RowError(f"image `{one_line(name)}`: the file cannot be read: {error.strerror}") from None
        if not inside:
            raise RowError(f"image `{one_line(name)}` {_outside(name, target, self.folder)}")
        try:
            path = path.absolute().relative_to(Path.cwd())
        except ValueError:
            path = path.absolute()
        return str(path)


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
    if found := _in_other_case(path):
        return f"; did you mean `{one_line(PurePath(name).with_name(found).as_posix())}`?"
    if name.startswith("~"):
        return "; `~` is not expanded"
    return "; expected `/` between folders" if "\\" in name else ""


def _in_other_case(path: Path) -> str | None:
    """The name of a file in the folder that differs only in case."""
    try:
        return _by_folded_name(path.parent, path.parent.stat().st_mtime_ns).get(path.name.casefold())
    except OSError:
        return None


@lru_cache(4)
def _by_folded_name(folder: Path, changed: int) -> dict[str, str]:
    """The names in a folder by their form without case; `changed` is its date, for the cache."""
    with os.scandir(folder) as entries:
        return {entry.name.casefold(): entry.name for entry in islice(entries, MOST_LISTED)}
