"""Hold a policy's gain against what else may explain it."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import BenchmarkBlock
from perceptune.stages import comparing
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        tables, settings = snakemake.input, snakemake.params.settings
        benchmarks = {name: BenchmarkBlock(**block) for name, block in settings["benchmarks"].items()}

        def scored(policy: str, rewards: list[str], verdicts: list[str]) -> comparing.Scored:
            of_reward = {Path(table).stem: Path(table) for table in rewards}
            of_benchmark = dict(zip(snakemake.params.judged, map(Path, verdicts), strict=True))
            return comparing.Scored(policy, {n: of_reward[b.reward] for n, b in benchmarks.items()}, of_benchmark)

        comparing.run(
            policy=scored(snakemake.wildcards.policy, tables.rewards, tables.verdicts),
            base=scored(snakemake.params.base, tables.base_rewards, tables.base_verdicts),
            twin=scored(snakemake.params.twin, tables.twin_rewards, tables.twin_verdicts)
            if snakemake.params.twin
            else None,
            benchmarks=benchmarks,
            reward_tasks=settings["rewards"],
            examples=dict(zip(snakemake.params.datasets, map(Path, tables.examples), strict=True)),
            controls=Path(snakemake.output.controls),
        )
