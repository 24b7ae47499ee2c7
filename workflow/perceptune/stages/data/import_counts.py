"""What an import says about all rows of a dataset. Of the rows themselves, nothing stays in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from perceptune.contracts.config import Boxes, FileDataset
from perceptune.contracts.quarantine import Failures, check_ceiling
from perceptune.core.data.coordinate_frames import BoxFits
from perceptune.core.data.disk_dict import DiskDict
from perceptune.core.data.row_checks import shown
from perceptune.stages.data.row_batches import LOST, Checked, failed_row


class ImportCounts:
    """Counts of rows, boxes and images; finds ids that repeat."""

    def __init__(self, config: FileDataset, source: str, orders: Sequence[Boxes]) -> None:
        """`source`: the name of the dataset's file or folder; `orders`: those that `boxes` can set."""
        self.failures = Failures()
        self.fits = BoxFits(config.coordinates or "pixels", config.boxes or "xyxy", orders)
        self._source = source
        self._limits = config.max_failed_share, config.max_failed_rows
        self._first_turned = ""
        self._rows = self._boxes = self._different_images = 0
        self._splits: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()
        self._images = DiskDict()
        self._places = DiskDict()
        """Id to the place of the first row with it."""

    def add(self, batch: Sequence[Checked]) -> list[dict[str, Any]]:
        """Counts a batch. Returns its rows, of which those that repeat an earlier id have failed."""
        self._rows += len(batch)
        self._splits.update(one.split for one in batch if one.split is not None)
        self._add_boxes(batch)
        return [self._counted(one) for one in batch]

    def check_ceiling(self) -> None:
        """Raises `UserError` with the likely cause if more rows have failed than the config allows."""
        cause = (self.fits.as_stored() or self.fits.better_fit()) if self.failures else None
        if cause is None and len(self.failures) == self._rows and LOST in self.failures.lines:
            cause = "key `images` of the dataset block sets the folder that image names are relative to"
        check_ceiling(self.failures, self._rows, "rows cannot be used", *self._limits, hint=cause)

    def frame_lines(self) -> Iterator[str]:
        """For the log: how many boxes fit each coordinate format, and doubts about the declared one."""
        fits = self.fits
        if not fits.boxes:
            return
        counts = ", ".join(f"`{name}` {number}" for name, number in fits.fitting.items())
        yield f"coordinates: `{fits.declared}`; boxes that fit (of {fits.boxes}): {counts}"
        for line in (fits.better_fit(), fits.doubt()):
            if line:
                yield f"warning: {line}"
        if fits.turned:
            yield (
                f"warning: {fits.turned} of {fits.boxes} boxes (first: {self._first_turned}) are on images that are"
                " rotated by their EXIF orientation; boxes refer to the upright image, so boxes drawn on the stored"
                " pixels are wrong"
            )

    def split_lines(self, published: Mapping[str, int]) -> Iterator[str]:
        """For the log: the number of rows per split, with the published number if there is one."""
        whole = {"all": self._rows} if "all" in published else {}
        for split, number in {**whole, **self._splits}.items():
            official = published.get(split)
            verdict = "" if official is None else ", as published" if official == number else f", {official} published"
            yield f"{split}: {number} rows{verdict}"

    def contents(self) -> str:
        """The number of examples by task, of different images and of boxes."""
        tasks = ", ".join(f"{number:,} {task}" for task, number in sorted(self._tasks.items()))
        images, boxes = f"{self._different_images:,} different images", f"{self._boxes:,} boxes"
        return f"{self._tasks.total():,} examples ({tasks}) with {images} and {boxes}"

    def _counted(self, checked: Checked) -> dict[str, Any]:
        place, row = checked.place, checked.row
        if row["reason"] is None:
            first = self._places.setdefault(row["example_id"], place)
            if first != place:
                identity = shown(row["example_id"])
                row = failed_row(place, f"`id` {identity} was already used in {first}, expected unique ids")
        if row["reason"] is not None:
            self.failures.add(f"{self._source}, {place}: {row['reason']}")
            print(f"left out: {self._source}, {place}: {row['reason']}")
            return row
        self._tasks[row["task"]] += 1
        self._boxes += row["box"] is not None
        self._different_images += sum(map(self._images.add, row["image_sha256"]))
        return row

    def _add_boxes(self, batch: Sequence[Checked]) -> None:
        found = [(one.place, one.box, one.image) for one in batch if one.box is not None and one.image is not None]
        if found:
            turned = [image.turned for _, _, image in found]
            self.fits.add(
                np.array([box for _, box, _ in found], dtype=float),
                np.array([image.size for _, _, image in found], dtype=float),
                np.array(turned),
            )
            if any(turned) and not self._first_turned:
                self._first_turned = found[turned.index(True)][0]
