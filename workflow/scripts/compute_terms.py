"""Compute log-probabilities that stay the same while training."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.contracts.paths import stored_of_name
from perceptune.core.methods.method import Stored
from perceptune.stages.job import job
from perceptune.stages.shown import by_name

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
            stored=[Stored(*pair) for pair in stored_of_name(snakemake.wildcards.stored)],
            adapter=Path(snakemake.input.adapter).parent if snakemake.input.adapter else None,
            views={name: ViewBlock(**block) for name, block in snakemake.params.views.items()},
            of_round=snakemake.params.of_round,
            saliencies=by_name(snakemake.input.saliencies),
            halvings=halvings,
        )
