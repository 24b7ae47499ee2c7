"""Examples with their images, loaded on demand so that a stage holds only those that it uses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL.Image import Image

from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import RowGroups, read_table
from perceptune.core.data.images import image_bytes, open_image
from perceptune.stages.data.examples import Examples


class IllustratedExamples(Examples):
    """The usable rows of an `examples` table, with images that are verified against the import.

    Images are read by row group, and only the last group is kept: request them in the order of the
    table, or `fetch` those that are needed in another order.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._group: tuple[int, pa.ChunkedArray] | None = None
        self._fetched: dict[str, list[dict[str, Any]]] = {}

    def fetch(self, ids: Iterable[str]) -> None:
        """Reads the images of these examples in one pass; replaces those of the previous call."""
        rows_of: dict[int, dict[str, int]] = {}
        for example_id in ids:
            number, row = self._groups.place_of(self._places[example_id][0])
            rows_of.setdefault(number, {})[example_id] = row
        self._fetched, self._group = {}, None
        for number, rows in sorted(rows_of.items()):
            column = self._groups.read(number, "images")
            self._fetched |= {example_id: column[row].as_py() for example_id, row in rows.items()}

    def images(self, example_id: str) -> list[Image]:
        """The images of an example, opened.

        Raises `ValueError` like `image`.
        """
        return [_opened(*pair) for pair in zip(*self._stored(example_id), strict=True)]

    def image(self, example_id: str, number: int) -> Image:
        """One image of an example, counted from 0.

        Raises `ValueError` if it cannot be opened or has changed since the import.
        """
        images, digests = self._stored(example_id)
        return _opened(images[number], digests[number])

    def files(self, example_id: str) -> list[dict[str, Any]]:
        """The image structs of an example as stored, for stages that cannot continue without them.

        Raises `UserError` with image and example if one is unreadable or has changed since the
        import.
        """
        images, digests = self._stored(example_id)
        for image, digest in zip(images, digests, strict=True):
            try:
                _checked(image, digest)
            except ValueError as error:
                name = image["path"] or "(in the table)"
                raise UserError(f"image `{name}` of example `{example_id}`: {error}") from None
        return images

    def _stored(self, example_id: str) -> tuple[list[dict[str, Any]], list[str]]:
        """Image structs and their digests."""
        place, digests = self._places[example_id]
        if example_id in self._fetched:
            return self._fetched[example_id], digests
        number, row = self._groups.place_of(place)
        if self._group is None or self._group[0] != number:
            self._group = None  # frees memory before the next group is read
            self._group = number, self._groups.read(number, "images")
        return self._group[1][row].as_py(), digests

    @cached_property
    def _groups(self) -> RowGroups:
        return RowGroups(self.path)

    @cached_property
    def _places(self) -> dict[str, tuple[int, list[str]]]:
        """Id to row number and image digests."""
        found = read_table(self.path, EXAMPLES, ["example_id", "image_sha256", "reason"]).to_pylist()
        return {r["example_id"]: (n, r["image_sha256"]) for n, r in enumerate(found) if r["reason"] is None}


def _opened(image: Mapping[str, Any], digest: str) -> Image:
    return open_image({"bytes": _checked(image, digest), "path": None})


def _checked(image: Mapping[str, Any], digest: str) -> bytes:
    """The encoded file of an image struct.

    Raises `ValueError` if it is unreadable or has changed since the import.
    """
    data = image_bytes(image)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the image has changed since the import; import the dataset again")
    return data
