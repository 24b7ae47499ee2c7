"""Have a policy's answers to one benchmark judged."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import BenchmarkBlock, JudgeBlock, ModelBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import judge  # here, so that what it prints while loading goes to the log

        settings, blocks = snakemake.params.settings, snakemake.params.blocks
        judge.run(
            name=settings["name"],
            judge=JudgeBlock(**blocks["judge"]),
            benchmark=snakemake.wildcards.benchmark,
            block=BenchmarkBlock(**blocks["block"]),
            rewards=Path(snakemake.input.rewards),
            examples=Path(snakemake.input.examples),
            verdicts=Path(snakemake.output.verdicts),
            kept=Path(blocks["kept"]),
            model=ModelBlock(**blocks["model"]) if blocks["model"] else None,
            weights=settings["model"]["weights"] if settings["model"] else None,
            halvings=halvings,
        )
