"""Generate the demo data."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ShapesDataset
from perceptune.stages import shapes
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        shapes.run(config=ShapesDataset(**snakemake.params.settings), data=Path(snakemake.output.data))
