"""Examples with their images, read when they are needed."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL.Image import Image

from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import Rows
from perceptune.core.data.images import image_bytes, open_image
from perceptune.stages.data.examples import Examples

RECENT = 2**25
"""Bytes of image files that stay in memory: several questions, or several views, may share an image."""


class IllustratedExamples(Examples):
    """The usable rows of an `examples` table, with images that are verified against the import.

    An image is read with its row group, see `Rows`: the table's order is the fastest, any other
    order costs a few milliseconds per image.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._recent_bytes = 0

    def images(self, example_id: str) -> list[Image]:
        """The images of an example, opened.

        Raises `ValueError` like `image`.
        """
        return [self.image(example_id, number) for number in range(len(self._digests(example_id)))]

    def image(self, example_id: str, number: int) -> Image:
        """One image of an example, counted from 0.

        Raises `ValueError` if it cannot be opened or has changed since the import.
        """
        return open_image({"bytes": self._file(example_id, number), "path": None})

    def files(self, example_id: str) -> list[dict[str, Any]]:
        """The images of an example as structs with `bytes`, for stages that cannot continue without them.

        Raises `UserError` with image and example if one is unreadable or has changed since the
        import.
        """
        files = []
        for number in range(len(self._digests(example_id))):
            try:
                files.append({"bytes": self._file(example_id, number), "path": None})
            except ValueError as error:
                name = self._stored(example_id, number)["path"] or "(in the table)"
                raise UserError(f"image `{name}` of example `{example_id}`: {error}") from None
        return files

    def check_files(self, ids: pa.Array) -> None:
        """Raises `UserError` like `files` if an image file of these examples does not exist.

        It only looks for the files: whether they have changed is known when they are read.
        """
        for group in Rows(self.path, EXAMPLES, ["example_id", "images.list.element.path"]).groups():
            asked = group.filter(pc.is_in(group["example_id"], ids))
            for row in asked.to_pylist():
                paths = (image["path"] for image in row["images"])
                # pathlib takes several times as long
                if not all(path is None or os.path.exists(path) for path in paths):  # noqa: PTH110
                    self.files(row["example_id"])

    def _digests(self, example_id: str) -> list[str]:
        return list(self.row(example_id, ("image_sha256",))["image_sha256"])

    def _stored(self, example_id: str, number: int) -> dict[str, Any]:
        """The struct of an image."""
        return dict(self.row(example_id, ("images",))["images"][number])

    def _file(self, example_id: str, number: int) -> bytes:
        """The encoded file of an image.

        Raises `ValueError` if it is unreadable or has changed since the import.
        """
        digest = self._digests(example_id)[number]
        if digest in self._recent:
            self._recent.move_to_end(digest)
            return self._recent[digest]
        data = image_bytes(self._stored(example_id, number))
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("the image has changed since the import; import the dataset again")
        self._recent[digest] = data
        self._recent_bytes += len(data)
        while self._recent_bytes > RECENT and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1])
        return data
