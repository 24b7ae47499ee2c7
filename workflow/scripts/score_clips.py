"""Score questions, images and crops with CLIP."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ClipBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import clips  # here, so that what torch prints while loading goes to the log

        clips.run(
            examples=Path(snakemake.input.examples),
            crops=Path(snakemake.input.crops),
            clips=Path(snakemake.output.clips),
            config=ClipBlock(**snakemake.params.block),
            weights=snakemake.params.settings["weights"],
            halvings=halvings,
        )
