"""Ask a policy one shard of its questions."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import ModelBlock
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        from perceptune.stages import responses  # here, so that what vLLM and torch print while loading goes to the log

        shard, shards = map(int, snakemake.wildcards.scatteritem.split("-of-"))
        responses.run(
            requests=Path(snakemake.input.requests),
            examples=dict(zip(snakemake.params.datasets, map(Path, snakemake.input.examples), strict=True)),
            responses=Path(snakemake.output.responses),
            journal=Path(snakemake.params.journal),
            model=ModelBlock(**snakemake.params.model),
            weights=snakemake.params.settings["weights"],
            adapter=Path(snakemake.input.adapter).parent if snakemake.input.adapter else None,
            shard=shard - 1,
            shards=shards,
            beside=[
                responses.Asked(
                    Path(other["requests"]),
                    {name: Path(table) for name, table in other["examples"].items()},
                    Path(other["journal"]),
                    Path(other["responses"]),
                )
                for other in snakemake.params.beside
            ],
            halvings=halvings,
        )
