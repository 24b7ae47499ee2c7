"""Put the metrics of all policies together."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.stages import collecting
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        collecting.run(metrics=[Path(table) for table in snakemake.input], collected=Path(snakemake.output.metrics))
