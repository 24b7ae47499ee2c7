"""Keep the pairs worth learning from."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import FilterBlock
from perceptune.stages import filter as filtering
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        filtering.run(
            pairs=Path(snakemake.input.pairs),
            terms=Path(snakemake.input.terms),
            clips=Path(snakemake.input.clips[0]) if snakemake.input.clips else None,
            preferences=Path(snakemake.output.preferences),
            statistics=Path(snakemake.output.statistics),
            config=FilterBlock(**snakemake.params.settings),
        )
