"""Measure where a policy looks."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import AttentionBlock, ModelBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        from perceptune.stages import attention  # here, so that what torch prints while loading goes to the log

        attention.run(
            dataset=snakemake.wildcards.dataset,
            examples=Path(snakemake.input.examples),
            attention=Path(snakemake.output.attention),
            model=ModelBlock(**snakemake.params.model),
            weights=snakemake.params.weights["weights"],
            adapter=Path(snakemake.input.adapter).parent if snakemake.input.adapter else None,
            config=AttentionBlock(**snakemake.params.settings),
        )
