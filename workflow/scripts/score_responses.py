"""Score responses."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock, RewardBlock
from perceptune.stages import rewards
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        rewards.run(
            requests=Path(snakemake.input.requests),
            responses=Path(snakemake.input.responses),
            examples=dict(zip(snakemake.params.datasets, map(Path, snakemake.input.examples), strict=True)),
            rewards=Path(snakemake.output.rewards),
            config=RewardBlock(**snakemake.params.block),
            benchmarks=snakemake.params.settings["benchmarks"],
            resources=snakemake.params.settings["resources"],
            model=ModelBlock(**snakemake.params.model),
        )
