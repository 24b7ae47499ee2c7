"""Put the answers of pairs side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import PairingBlock
from perceptune.stages import pairs
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        pairs.run(
            requests=Path(snakemake.input.requests),
            responses=Path(snakemake.input.responses),
            examples=Path(snakemake.input.examples),
            pairs=Path(snakemake.output.pairs),
            config=PairingBlock(**snakemake.params.block),
        )
