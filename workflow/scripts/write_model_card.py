"""Write the card of an exported model."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock
from perceptune.stages import model_card
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        model_card.run(
            policy=snakemake.wildcards.policy,
            base=snakemake.params.base,
            parity=Path(snakemake.input.parity),
            training=Path(snakemake.input.training),
            metrics=Path(snakemake.input.metrics) if snakemake.input.metrics else None,
            card=Path(snakemake.output.card),
            model=ModelBlock(**snakemake.params.model),
            config=snakemake.params.settings["config"],
        )
