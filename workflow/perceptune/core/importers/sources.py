"""The files of a dataset block, as its importer reads them."""

from __future__ import annotations

from pathlib import Path

from perceptune.contracts.config import FileDataset
from perceptune.core.data.read_files import Files
from perceptune.core.importers.importer import Importer


def source_of(block: FileDataset, importer: Importer, *, images: bool = True) -> Files:
    """The file or folder that a dataset block names. `images`: whether to read images inside it.

    Raises pydantic's `ValidationError` for parameters that the format does not have.
    """
    parameters = importer.Parameters.model_validate(block.parameters)
    return Files(
        Path(block.path),
        importer.reads,
        block.split,
        parameters=parameters,
        boxes=block.boxes,
        coordinates=block.coordinates,
        images=images,
    )
