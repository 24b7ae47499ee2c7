"""Select the groups of a round that are learnt from."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import BatchBlock
from perceptune.stages import batches
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        batches.run(
            requests=Path(snakemake.input.requests),
            responses=Path(snakemake.input.responses),
            rewards=Path(snakemake.input.rewards),
            preferences=Path(snakemake.output.preferences),
            statistics=Path(snakemake.output.statistics),
            config=BatchBlock(**snakemake.params.settings),
        )
