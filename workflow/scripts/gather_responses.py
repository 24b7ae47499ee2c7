"""Put the shards of a policy's answers together."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.stages import gathering
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        gathering.run(
            requests=Path(snakemake.input.requests),
            shards=[Path(shard) for shard in snakemake.input.shards],
            responses=Path(snakemake.output.responses),
            journal=Path(snakemake.params.journal),
        )
