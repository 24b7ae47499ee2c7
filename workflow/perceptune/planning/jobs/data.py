"""Jobs that make or import examples."""

from __future__ import annotations

from typing import Any

from perceptune.contracts import paths
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.code import MEMORY
from perceptune.planning import resources
from perceptune.planning.cross_checks import Questions
from perceptune.planning.data_digest import data_digest
from perceptune.planning.job import Job
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.sizes import import_size


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
        details={"config": block.model_dump(mode="json"), "memory": str(MEMORY.path)},
        modules=(module_of("importer", block.kind),),
        undated=() if generated else ("data",),
        needs=lambda read: resources.importing(*import_size(plan, dataset)),
    )


def find_leakage(plan: Plan, *, dataset: str, source: str) -> Job:
    experiments = [
        e for e in plan.config.experiments.values() if (e.dataset, getattr(e, e.made_of[0])) == (dataset, source)
    ]
    asked = {name for experiment in experiments for name in experiment.benchmarks}
    benchmarks = {name: block for name, block in plan.config.benchmarks.items() if name in asked}
    return Job(
        inputs={"examples": plan.examples(dict.fromkeys([dataset, *(b.dataset for b in benchmarks.values())]))},
        settings={
            "training": _selection(dataset, plan.config.sources()[source]),
            "benchmarks": {name: _selection(block.dataset, block) for name, block in benchmarks.items()},
        },
        details={"mode": plan.config.leakage},
    )


def _selection(dataset: str, block: Questions) -> dict[str, Any]:
    """The questions of a block; a rollout has no limit."""
    return {"dataset": dataset, **block.model_dump(mode="json", include={"split", "tasks", "limit"})}


def without_leakage(plan: Plan, dataset: str, source: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Input and details of a job that plans what to train on; with `leakage: refuse`, it does not run
    if the training data share anything with a benchmark.

    The input must be undated: a change of a benchmark, or of `leakage`, does not sample again.
    """
    table = paths.LEAKAGE.format(dataset=dataset, source=source)
    refused = {f"{dataset}/{source}": table} if plan.config.leakage == "refuse" else {}
    return {"leakage": table}, {"refused": refused}
