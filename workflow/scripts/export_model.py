"""Export a trained policy as a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import model_export  # here, so that what torch prints while loading goes to the log

        model_export.run(
            policy=snakemake.wildcards.policy,
            requests=Path(snakemake.input.requests),
            examples=dict(zip(snakemake.params.datasets, map(Path, snakemake.input.examples), strict=True)),
            adapter=Path(snakemake.input.adapter).parent,
            folder=Path(snakemake.output.parity).parent,
            model=ModelBlock(**snakemake.params.model),
            weights=snakemake.params.settings["weights"],
            halvings=halvings,
        )
