"""Jobs that export models and preferences."""

from __future__ import annotations

from typing import Any

from perceptune.contracts import paths
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.planning import resources
from perceptune.planning.job import Job
from perceptune.planning.jobs.evaluation import PACKAGE_FOLDER
from perceptune.planning.policies import Plan, parted, tracked
from perceptune.planning.sizes import adapter_count, policy_weights
from perceptune.planning.validation import plural
from perceptune.planning.views import requested_views, view_blocks, view_modules, views_trained


def export_model(plan: Plan, *, policy: str) -> Job:
    gpus = plan.config.models[plan.base(policy)].engine.tensor_parallel_size
    return Job(
        inputs={
            "adapter": plan.adapter(policy),
            "requests": paths.BENCHMARK_REQUESTS.format(policy=policy),
            "examples": plan.examples(plan.datasets(policy, "benchmarks")),
            "probe": plan.probe(policy),
        },
        settings={"base": plan.model_settings(policy)},
        details={
            **plan.model_details(policy),
            "adapter": plan.adapter_folder(policy),
            "folder": paths.MODEL_FOLDER.format(policy=policy),
        },
        modules=(plan.family(policy), *view_modules(plan, requested_views(plan, policy, "benchmarks"))),
        threads=plan.threads(policy),
        gpus=gpus,
        needs=lambda read: resources.exporting(policy_weights(plan, policy), adapter_count(plan, policy), gpus),
    )


def write_model_card(plan: Plan, *, policy: str) -> Job:
    tested = policy in plan.policies
    return Job(
        inputs={
            "parity": paths.MODEL_PARITY.format(policy=policy),
            "lineage": paths.MODEL_LINEAGE.format(policy=policy),
            "training": paths.TRAINING.format(experiment=policy),
            "metrics": paths.METRICS.format(policy=policy) if tested else None,
            "leakage": plan.leakage([policy]),
        },
        settings={
            "leakage_mode": plan.config.leakage,
            "config": card_settings(plan, policy),
            "template": sha256_of_file(PACKAGE_FOLDER / "stages/export/model_card.md.jinja"),
            "base": plan.base(policy),
        },
        details={"model": plan.config.models[plan.base(policy)].model_dump(mode="json")},
        needs=lambda read: resources.tables(read(), tokenizer=True),
    )


def export_preferences(plan: Plan, *, export: str) -> Job:
    block, policy = plan.config.exports[export], plan.exported(export)
    view = plan.training(policy).view
    return Job(
        inputs={
            "preferences": plan.preferences(policy),
            "examples": paths.EXAMPLES.format(dataset=plan.block(policy).dataset),
        },
        settings={
            "config": tracked(block),
            "experiment": policy,
            "view": view,
            "views": view_blocks(plan, view),
            "template": sha256_of_file(PACKAGE_FOLDER / "stages/export/export_readme.md.jinja"),
        },
        details={"name": export, "folder": paths.EXPORT_FOLDER.format(export=export)},
        modules=(module_of("exporter", block.format), *view_modules(plan, [view])),
    )


def card_settings(plan: Plan, policy: str) -> dict[str, Any]:
    """How a policy was trained, for its model card: its experiment and every block this refers
    to."""
    block, experiment = plan.block(policy), parted(policy)[0]
    named = {key: [getattr(block, key)] for key in ("model", "dataset", *block.made_of, "training")}
    named |= {"benchmark": list(block.benchmarks)}
    used = {
        plural(key): {name: tracked(getattr(plan.config, plural(key))[name]) for name in names}
        for key, names in named.items()
    }
    views = view_blocks(plan, *views_trained(plan, policy))
    return {**used, **({"views": views} if views else {}), "experiments": {experiment: tracked(block)}}
