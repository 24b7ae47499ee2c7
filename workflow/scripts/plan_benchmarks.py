"""Plan the benchmark questions of a policy."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import BenchmarkBlock
from perceptune.stages import requests
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        requests.run_benchmarks(
            examples=dict(zip(snakemake.params.datasets, map(Path, snakemake.input.examples), strict=True)),
            requests=Path(snakemake.output.requests),
            benchmarks={name: BenchmarkBlock(**block) for name, block in snakemake.params.benchmarks.items()},
            views=requests.Views.by_dataset(
                snakemake.params.datasets,
                snakemake.params.settings["views"],
                snakemake.input.crops,
                snakemake.input.saliencies,
            ),
            rewards=snakemake.params.rewards,
        )
