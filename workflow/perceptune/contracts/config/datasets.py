"""Datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from perceptune.contracts.config.blocks import Block, Parameter, Positive, Seed, Share, Task

Coordinates = Literal["pixels", "normalised", "thousand", "padded_normalised", "padded_thousand"]
Boxes = Literal["xyxy", "xywh", "cxcywh", "yxyx"]


class ShapesDataset(Block):
    """Generated demo data: coloured shapes and short words."""

    kind: Literal["shapes"]
    """Generates the data."""
    seed: Seed = 0
    """Seed of the scenes."""
    train: dict[Task, Positive] = {}
    """Questions per task in the training split."""
    validation: dict[Task, Positive] = {}
    """Questions per task in the validation split."""
    test: dict[Task, Positive] = {}
    """Questions per task in the test split."""


class FileDataset(Block):
    """Your own images with questions, or a published dataset."""

    kind: str
    """Format: `jsonl`, `csv`, `parquet` or `hf` (a folder written by `datasets.save_to_disk`) with
    the columns of [your own data](#your-own-data), object detection annotations (`coco`, `yolo`,
    `voc`), or the format of a published dataset (docs/data.md)."""
    path: Annotated[str, Field(min_length=1)]
    """File or folder."""
    images: str | None = None
    """Folder that image paths are relative to; null: the folder of `path`."""
    coordinates: Coordinates | None = None
    """Unit of `box` values: pixels, fractions (0 to 1) or thousandths of width and height;
    `padded_`: of the image padded to a square. null: the format's unit, or pixels if it declares
    none."""
    boxes: Boxes | None = None
    """Order of the four `box` values: corners (`xyxy`), corner and size (`xywh`), centre and size
    (`cxcywh`), or corners with y first (`yxyx`). null: the format's order, or `xyxy` if it declares
    none."""
    parameters: dict[str, Parameter] = {}
    """[Parameters](#parameters-of-importers) of this format."""
    watch_images: bool = True
    """Check at every start, by size and modification time, whether image files have changed. Turn
    this off for very large datasets."""
    task: Task | None = None
    """Task of rows without one."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Split of rows without one; null: the split in the name of their Parquet file (docs/data.md),
    or `train`."""
    test_share: Share | None = None
    """Share of the images whose questions move from the split `train` to `test`, for data without a
    test split. The content of a question's first image decides, so that new rows never move old
    ones; null: none."""
    max_images: Positive | None = None
    """Reproduction only: skip rows with more images and count them in the log, as in CPPO's code;
    null: no limit."""
    max_failed_share: Share = 0.0
    """Maximum share of unusable rows; the import stops above it."""
    max_failed_rows: Annotated[int, Field(ge=0)] | None = None
    """Maximum number of unusable rows. If `max_failed_share` is above 0, both apply; null: only
    `max_failed_share` applies."""


def _kind_of_dataset(block: Any) -> str:
    kind = block.get("kind") if isinstance(block, Mapping) else getattr(block, "kind", None)
    return "shapes" if kind == "shapes" else "file"


DatasetBlock = Annotated[
    Annotated[ShapesDataset, Tag("shapes")] | Annotated[FileDataset, Tag("file")], Discriminator(_kind_of_dataset)
]
