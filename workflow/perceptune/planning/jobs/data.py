"""Jobs that make or import examples."""

from __future__ import annotations

from typing import Any

from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.code import MEMORY
from perceptune.planning.data_digest import data_digest
from perceptune.planning.job import Job
from perceptune.planning.policies import Plan, tracked


def make_shapes(plan: Plan, *, dataset: str) -> Job:
    return Job({}, {"config": tracked(plan.config.datasets[dataset])})


def import_examples(plan: Plan, *, dataset: str) -> Job:
    block, generated = plan.import_block(dataset), plan.is_generated(dataset)
    settings: dict[str, Any] = {"block": tracked(block)}
    if not generated:  # Snakemake watches generated data itself
        settings["content"] = plan.remembered(f"data {dataset}", lambda: data_digest(block, MEMORY))
    return Job(
        inputs={"data": plan.data_file(dataset)},
        settings=settings,
        details={"config": block.model_dump(mode="json")},
        modules=(module_of("importer", block.kind),),
        undated=() if generated else ("data",),
    )
