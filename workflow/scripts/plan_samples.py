"""Plan the training questions."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import SamplingBlock
from perceptune.stages import requests
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        requests.run_samples(
            dataset=snakemake.wildcards.dataset,
            examples=Path(snakemake.input.examples),
            requests=Path(snakemake.output.requests),
            config=SamplingBlock(**snakemake.params.settings),
            views=requests.Views.read(snakemake.params.views, snakemake.input.crops, snakemake.input.saliencies),
        )
