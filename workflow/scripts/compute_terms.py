"""Compute reference log-probabilities."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import terms  # here, so that what vLLM and torch print while loading goes to the log

        terms.run(
            preferences=Path(snakemake.input.preferences),
            examples=Path(snakemake.input.examples),
            terms=Path(snakemake.output.terms),
            model=ModelBlock(**snakemake.params.model),
            weights=snakemake.params.settings["weights"],
            view=snakemake.wildcards.view,
            views={name: ViewBlock(**block) for name, block in snakemake.params.views.items()},
            halvings=halvings,
        )
