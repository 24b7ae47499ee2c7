"""Train an adapter."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock, TrainingBlock, ViewBlock
from perceptune.stages.job import job
from perceptune.stages.shown import by_name

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import train  # here, so that what vLLM and torch print while loading goes to the log

        train.run(
            experiment=snakemake.wildcards.experiment,
            preferences=Path(snakemake.input.preferences),
            examples=Path(snakemake.input.examples),
            terms=dict(zip(snakemake.params.views, map(Path, snakemake.input.terms), strict=True)),
            adapter=Path(snakemake.output.adapter).parent,
            training=Path(snakemake.output.training),
            checkpoints=Path(snakemake.params.checkpoints),
            model=ModelBlock(**snakemake.params.blocks["model"]),
            weights=snakemake.params.weights["weights"],
            config=TrainingBlock(**snakemake.params.blocks["training"]),
            views={name: ViewBlock(**block) for name, block in snakemake.params.settings["views"].items()},
            saliencies=by_name(snakemake.input.saliencies),
            halvings=halvings,
        )
