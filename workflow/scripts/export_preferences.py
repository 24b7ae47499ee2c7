"""Export an experiment's preferences for another trainer."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ExportBlock, ViewBlock
from perceptune.stages import preference_export
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        settings = snakemake.params.settings
        preference_export.run(
            name=snakemake.wildcards.export,
            experiment=settings["policy"],
            preferences=Path(snakemake.input.preferences),
            examples=Path(snakemake.input.examples),
            folder=Path(snakemake.output.readme).parent,
            config=ExportBlock(**settings["export"]),
            view=settings["view"],
            views={name: ViewBlock(**block) for name, block in settings["views"].items()},
        )
