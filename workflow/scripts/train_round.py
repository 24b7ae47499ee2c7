"""Train the adapter of a round."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock, TrainingBlock, ViewBlock
from perceptune.stages.job import job
from perceptune.stages.shown import by_name

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import train_round  # here, so that what torch prints while loading goes to the log

        train_round.run(
            experiment=snakemake.wildcards.experiment,
            number=snakemake.params.number,
            preferences=Path(snakemake.input.preferences),
            responses=Path(snakemake.input.responses),
            examples=Path(snakemake.input.examples),
            terms=Path(snakemake.input.terms),
            before=Path(snakemake.input.before).parent if snakemake.input.before else None,
            adapter=Path(snakemake.output.adapter).parent,
            training=Path(snakemake.output.training),
            checkpoints=Path(snakemake.params.checkpoints),
            model=ModelBlock(**snakemake.params.blocks["model"]),
            weights=snakemake.params.weights["weights"],
            config=TrainingBlock(**snakemake.params.blocks["training"]),
            views={name: ViewBlock(**block) for name, block in snakemake.params.settings["views"].items()},
            longest=snakemake.params.settings["longest"],
            saliencies=by_name(snakemake.input.saliencies),
            halvings=halvings,
        )
