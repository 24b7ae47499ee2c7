"""Plan the questions of a round."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import RolloutBlock
from perceptune.stages import requests, rounds
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        requests.run_round(
            dataset=snakemake.wildcards.dataset,
            examples=Path(snakemake.input.examples),
            requests=Path(snakemake.output.requests),
            number=snakemake.params.number,
            stopped=bool(snakemake.input.before)
            and rounds.Ending.read(Path(snakemake.input.before)).stopped is not None,
            config=RolloutBlock(**snakemake.params.settings),
            views=requests.Views.read(snakemake.params.views),
        )
