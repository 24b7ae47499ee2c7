"""Import a dataset."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import FileDataset
from perceptune.stages import examples
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        examples.run(config=FileDataset(**snakemake.params.block), examples=Path(snakemake.output.examples))
