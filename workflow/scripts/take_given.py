"""Take the answers that come with the data."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import GivenBlock, ModelBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        from perceptune.stages import given  # here, so that what torch prints while loading goes to the log

        given.run(
            dataset=snakemake.wildcards.dataset,
            examples=Path(snakemake.input.examples),
            preferences=Path(snakemake.output.preferences),
            statistics=Path(snakemake.output.statistics),
            config=GivenBlock(**snakemake.params.settings),
            model=ModelBlock(**snakemake.params.model),
            weights=snakemake.params.weights["weights"],
        )
