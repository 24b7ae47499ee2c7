"""Jobs that compute stored log-probs and train."""

from __future__ import annotations

from perceptune.contracts import paths
from perceptune.contracts.plugins import module_of
from perceptune.planning import resources
from perceptune.planning.job import Job
from perceptune.planning.policies import Plan, parted, tracked
from perceptune.planning.resources import Needs
from perceptune.planning.sizes import adapter_count, group_tokens, policy_weights
from perceptune.planning.views import pair_view, saliency_tables, view_blocks, view_modules, views_trained


def probe_model(plan: Plan, *, policy: str) -> Job:
    gpus = plan.config.models[policy].engine.tensor_parallel_size
    return Job(
        inputs={},
        settings={"base": plan.model_settings(policy)},
        details=plan.model_details(policy),
        modules=(plan.family(policy),),
        threads=plan.threads(policy),
        gpus=gpus,
        needs=lambda _: resources.probing(policy_weights(plan, policy), gpus),
    )


def compute_logprobs(plan: Plan, *, policy: str, dataset: str, groups: str, stored: str) -> Job:
    wanted, quantisation = paths.stored_of_name(stored)
    views = [view for _, view in wanted]
    blocks = view_blocks(plan, *views)
    learns_in_rounds = any(term == "old" for term, _ in wanted)
    sources = [pair_view(plan, groups, view) or view for view in views]
    return Job(
        inputs={
            "preferences": plan.groups(policy, dataset, groups),
            "examples": paths.EXAMPLES.format(dataset=dataset),
            "adapter": plan.adapter(policy) if learns_in_rounds else None,
            "saliencies": saliency_tables(plan, dataset, views),
            "probe": plan.probe(policy),
        },
        settings={"base": plan.model_settings(policy), "blocks": blocks},
        details={
            **plan.model_details(policy),
            "quantisation": quantisation,
            "adapter": plan.adapter_folder(policy) if learns_in_rounds else None,
            "stored": wanted,
            "views": blocks,
            "of_round": groups.split("/")[0] in plan.config.rollouts,
            "features": paths.FEATURES,
        },
        modules=(plan.family(policy), *view_modules(plan, sources)),
        threads=plan.threads(policy),
        gpus=1,
        needs=lambda read: resources.logprobs(
            policy_weights(plan, policy),
            read("preferences").rows * group_tokens(plan, policy, groups.split("/")[0], len(views)),
            adapter_count(plan, policy) if learns_in_rounds else 0,
            plan.workers(policy),
        ),
    )


def train_adapter(plan: Plan, *, experiment: str) -> Job:
    training = plan.training(experiment)
    blocks = view_blocks(plan, *views_trained(plan, experiment))
    terms = plan.stored_logprobs(experiment)
    return Job(
        inputs={
            "preferences": plan.preferences(experiment),
            "examples": paths.EXAMPLES.format(dataset=plan.block(experiment).dataset),
            "terms": {stored.view: table for stored, table in terms.items()},
            "saliencies": saliency_tables(plan, plan.block(experiment).dataset, views_trained(plan, experiment)),
            "probe": plan.probe(experiment),
        },
        settings={"training": tracked(training), "blocks": blocks, "base": plan.model_settings(experiment)},
        details={
            **plan.model_details(experiment),
            "config": training.model_dump(mode="json"),
            "views": blocks,
            "adapter": paths.ADAPTER_FOLDER.format(experiment=experiment),
            "checkpoints": paths.CHECKPOINTS.format(experiment=experiment),
            "trackers": paths.TRACKERS,
            "features": paths.FEATURES,
        },
        modules=_modules(plan, experiment),
        threads=plan.threads(experiment),
        gpus=training.devices * training.nodes,
        nodes=training.nodes,
        needs=lambda read: _needs(plan, experiment, read("preferences").rows),
    )


def keep_epoch(plan: Plan, *, experiment: str) -> Job:
    name, number = parted(experiment)
    return Job(
        inputs={"trained": paths.ADAPTER.format(experiment=name)},
        details={
            "kept": paths.EPOCH_FOLDER.format(experiment=name, epoch=number),
            "adapter": paths.ADAPTER_FOLDER.format(experiment=experiment),
        },
    )


def measure_gradients(plan: Plan, *, experiment: str) -> Job:
    training, measured = plan.training(experiment), plan.config.diagnostics
    assert measured is not None  # the rule's wildcard is constrained to `diagnosed`
    trained = train_adapter(plan, experiment=experiment)
    return Job(
        inputs={
            **{name: files for name, files in trained.inputs.items() if name != "terms"},
            "adapter": plan.adapter(experiment),
        },
        settings={**trained.settings, "measured": {"groups": measured.groups, "seed": measured.seed}},
        details={
            **plan.model_details(experiment),
            "config": training.model_dump(mode="json"),
            "views": trained.details["views"],
            "adapter": paths.ADAPTER_FOLDER.format(experiment=experiment),
            "journal": paths.DIAGNOSTICS_JOURNAL.format(experiment=experiment),
        },
        modules=trained.modules,
        threads=plan.threads(experiment),
        gpus=1,
        needs=lambda read: _diagnosing(plan, experiment, read("preferences").rows, measured.groups),
    )


def _diagnosing(plan: Plan, experiment: str, groups: int, most: int) -> Needs:
    """As a training on these groups, whose answers need a pass each, with the old and the new adapter."""
    block = plan.block(experiment)
    tokens = 8 * min(groups, most) * group_tokens(plan, experiment, getattr(block, block.made_of[0]), 2)
    workers = plan.workers(experiment)
    return resources.training(
        policy_weights(plan, experiment), adapter_count(plan, experiment), 1, tokens, workers=workers
    )


def train_round(plan: Plan, *, experiment: str) -> Job:
    training, block, before = plan.training(experiment), plan.block(experiment), plan.behaviour_policy(experiment)
    blocks = view_blocks(plan, *views_trained(plan, experiment))
    (terms,) = set(plan.stored_logprobs(experiment).values())
    longest, number = plan.config.rollouts[str(block.rollout)].max_tokens, plan.round_number(experiment)
    return Job(
        inputs={
            "preferences": plan.preferences(experiment),
            "responses": plan.round_responses(experiment),
            "examples": paths.EXAMPLES.format(dataset=block.dataset),
            "terms": terms,
            "before": plan.round_file(before),
            "adapter_before": plan.adapter(before),
            "saliencies": saliency_tables(plan, block.dataset, views_trained(plan, experiment)),
            "probe": plan.probe(experiment),
        },
        settings={
            "training": tracked(training),
            "blocks": blocks,
            "longest": longest,
            "number": number,
            "base": plan.model_settings(experiment),
        },
        details={
            **plan.model_details(experiment),
            "config": training.model_dump(mode="json"),
            "views": blocks,
            "before": plan.adapter_folder(before),
            "adapter": paths.ADAPTER_FOLDER.format(experiment=experiment),
            "checkpoints": paths.CHECKPOINTS.format(experiment=experiment),
            "trackers": paths.TRACKERS,
            "features": paths.FEATURES,
        },
        modules=_modules(plan, experiment),
        threads=plan.threads(experiment),
        gpus=training.devices * training.nodes,
        nodes=training.nodes,
        needs=lambda read: _needs(plan, experiment, read("preferences").rows),
    )


def select_tokens(plan: Plan, *, experiment: str) -> Job:
    training, made, removing = plan.training(experiment), plan.samples(experiment), plan.selects_by(experiment)
    (terms,) = set(plan.stored_logprobs(experiment).values())
    groups = "/".join(made[key] for key in plan.block(experiment).made_of)
    removed = paths.stored_name([("old", str(removing))], training.quantisation)
    return Job(
        inputs={
            "preferences": plan.preferences(experiment),
            "terms": terms,
            "removed": paths.TERMS.format(
                policy=made["policy"], dataset=made["dataset"], groups=groups, stored=removed
            ),
        },
        settings={
            "method": training.method,
            "parameters": tracked(training)["parameters"],
            "view": training.view,
            "base": plan.model_settings(experiment),
        },
        details=plan.model_details(experiment),
        modules=(module_of("method", training.method),),
        needs=lambda read: resources.tables(read(), tokenizer=True),
    )


def _needs(plan: Plan, experiment: str, groups: int) -> Needs:
    training, block = plan.training(experiment), plan.block(experiment)
    source, views = getattr(block, block.made_of[0]), len(list(views_trained(plan, experiment)))
    tokens = training.epochs * groups * group_tokens(plan, experiment, source, max(views, 1))
    workers = plan.workers(experiment, training.devices)
    return resources.training(
        policy_weights(plan, experiment),
        adapter_count(plan, experiment),
        training.devices,
        tokens,
        nodes=training.nodes,
        workers=workers,
    )


def _modules(plan: Plan, experiment: str) -> tuple[str, ...]:
    method = module_of("method", plan.training(experiment).method)
    return (plan.family(experiment), method, *view_modules(plan, views_trained(plan, experiment)))
