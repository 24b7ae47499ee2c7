"""Compute the metrics of a policy."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import BenchmarkBlock, ModelBlock
from perceptune.stages import evaluate
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        benchmarks = {name: BenchmarkBlock(**block) for name, block in snakemake.params.settings["benchmarks"].items()}
        rewards = {Path(table).stem: Path(table) for table in snakemake.input.rewards}
        base_rewards = {Path(table).stem: Path(table) for table in snakemake.input.base_rewards}
        evaluate.run(
            policy=snakemake.wildcards.policy,
            base=snakemake.params.base,
            rewards={name: rewards[block.reward] for name, block in benchmarks.items()},
            base_rewards={name: base_rewards[block.reward] for name, block in benchmarks.items()}
            if base_rewards
            else None,
            attention=dict(zip(snakemake.params.looked, map(Path, snakemake.input.attention), strict=True)),
            base_attention=dict(zip(snakemake.params.looked, map(Path, snakemake.input.base_attention), strict=True))
            if base_rewards
            else None,
            examples=dict(zip(snakemake.params.datasets, map(Path, snakemake.input.examples), strict=True)),
            verdicts=dict(zip(snakemake.params.judged, map(Path, snakemake.input.verdicts), strict=True)),
            base_verdicts=dict(zip(snakemake.params.judged, map(Path, snakemake.input.base_verdicts), strict=True))
            if base_rewards
            else {},
            metrics=Path(snakemake.output.metrics),
            benchmarks=benchmarks,
            reward_tasks=snakemake.params.settings["rewards"],
            model=ModelBlock(**snakemake.params.model),
        )
