"""Measure what stands out in images."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import SaliencyBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import saliency  # here, so that what torch prints while loading goes to the log

        saliency.run(
            dataset=snakemake.wildcards.dataset,
            examples=Path(snakemake.input.examples),
            saliency=Path(snakemake.output.saliency),
            config=SaliencyBlock(**snakemake.params.block),
            weights=snakemake.params.settings["weights"],
            halvings=halvings,
        )
