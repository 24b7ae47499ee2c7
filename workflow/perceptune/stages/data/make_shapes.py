"""Generates the demo data in the format of user datasets."""

from __future__ import annotations

from pathlib import Path

from perceptune.contracts.config import ShapesDataset
from perceptune.contracts.provenance.lineage import lineage, write_lineage
from perceptune.core.data.shapes import write_dataset


def run(*, config: ShapesDataset, data: Path) -> None:
    """Writes `data` (JSON lines), its images next to it, and its lineage."""
    splits = {"train": config.train, "validation": config.validation, "test": config.test}
    counts = {name: {str(task): n for task, n in tasks.items()} for name, tasks in splits.items() if tasks}
    write_dataset(data.parent, config.seed, counts)
    write_lineage(data.parent, lineage("data.make_shapes", config.model_dump(mode="json"), {}))
