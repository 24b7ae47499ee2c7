"""Generate the demo data."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ShapesDataset
from perceptune.stages import shapes
from perceptune.stages.job import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job_log(snakemake.log[0]):
        shapes.run(config=ShapesDataset(**snakemake.params.settings), data=Path(snakemake.output.data))
