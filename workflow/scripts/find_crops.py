"""Cut the salient crops."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import CropBlock
from perceptune.stages import crops
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        crops.run(
            attention=Path(snakemake.input.attention),
            crops=Path(snakemake.output.crops),
            config=CropBlock(**snakemake.params.block),
        )
