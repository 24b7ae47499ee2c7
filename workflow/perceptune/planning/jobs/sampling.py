"""Jobs that plan requests and sample responses."""

from __future__ import annotations

from typing import Any

from perceptune.contracts import paths
from perceptune.planning import resources
from perceptune.planning.benchmarks import benchmark_details, benchmark_settings, reward_tasks, rewards_by_task
from perceptune.planning.job import Job, Read
from perceptune.planning.jobs.data import without_leakage
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.resources import Needs
from perceptune.planning.sizes import answer_tokens, policy_weights, prompt_tokens
from perceptune.planning.views import crop_tables, requested_views, saliency_tables, view_blocks, view_modules, views_of

ONLY_EVALUATED = ("reward", "resamples", "attention_map", "protocol", "variant", "judge", "judge_prompt")
"""Keys of a benchmark block that do not affect requests."""


def plan_samples(plan: Plan, *, policy: str, dataset: str, sampling: str) -> Job:
    block = plan.config.samplings[sampling]
    views = views_of(block)
    blocks, crops = view_blocks(plan, *views), crop_tables(plan, policy, dataset, views)
    saliencies = saliency_tables(plan, dataset, views)
    leakage, refused = without_leakage(plan, dataset, sampling)
    return Job(
        inputs={
            "examples": paths.EXAMPLES.format(dataset=dataset),
            "crops": crops,
            "saliencies": saliencies,
            **leakage,
        },
        settings={"config": tracked(block), "blocks": blocks},
        details={
            "views": {"blocks": blocks, "crops": crops, "saliencies": saliencies},
            "rewards": _rewarded(plan, dataset=dataset, sampling=sampling),
            **refused,
        },
        undated=tuple(leakage),
    )


def plan_round(plan: Plan, *, policy: str, dataset: str, rollout: str) -> Job:
    block = plan.config.rollouts[rollout]
    blocks = view_blocks(plan, *views_of(block))
    leakage, refused = without_leakage(plan, dataset, rollout)
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset), "before": plan.round_file(policy), **leakage},
        settings={"config": tracked(block), "blocks": blocks, "number": plan.answered_round(policy)},
        details={
            "views": {"blocks": blocks},
            "rewards": _rewarded(plan, dataset=dataset, rollout=rollout),
            **refused,
        },
        undated=tuple(leakage),
    )


def _rewarded(plan: Plan, **asked: str) -> dict[str, dict[str, str]]:
    """Reward block to the reward of each task, for the experiments that score the responses to these
    questions."""
    experiments = plan.config.experiments.values()
    used = {e.reward: None for e in experiments if all(getattr(e, key) == name for key, name in asked.items())}
    return {name: rewards_by_task(plan.config.rewards[name]) for name in used if name is not None}


def plan_pairs(plan: Plan, *, policy: str, dataset: str, pair_generation: str) -> Job:
    block = plan.config.pair_generations[pair_generation]
    views = views_of(block)
    blocks, crops = view_blocks(plan, *views), crop_tables(plan, policy, dataset, views)
    requested = {key: value for key, value in tracked(block).items() if key != "loss_prompt"}  # used only in training
    leakage, refused = without_leakage(plan, dataset, pair_generation)
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset), "crops": crops, **leakage},
        settings={"pairs": requested, "blocks": blocks},
        details={"config": block.model_dump(mode="json"), "views": {"blocks": blocks, "crops": crops}, **refused},
        undated=tuple(leakage),
    )


def plan_benchmarks(plan: Plan, *, policy: str) -> Job:
    datasets = plan.datasets(policy, "benchmarks")
    blocks = view_blocks(plan, *requested_views(plan, policy, "benchmarks"))
    shown = {dataset: requested_views(plan, policy, "benchmarks", dataset) for dataset in datasets}
    crops = {dataset: crop_tables(plan, policy, dataset, views) for dataset, views in shown.items()}
    saliencies = {dataset: saliency_tables(plan, dataset, views) for dataset, views in shown.items()}
    requested = {
        name: {key: value for key, value in block.items() if key not in ONLY_EVALUATED}
        for name, block in benchmark_settings(plan, policy).items()
    }
    return Job(
        inputs={
            "examples": plan.examples(datasets),
            "crops": [table for tables in crops.values() for table in tables.values()],
            "saliencies": [table for tables in saliencies.values() for table in tables.values()],
        },
        settings={"asked": requested, "blocks": blocks},
        details={
            "benchmarks": benchmark_details(plan, policy),
            "views": {d: {"blocks": blocks, "crops": crops[d], "saliencies": saliencies[d]} for d in datasets},
            "rewards": reward_tasks(plan, policy),
        },
    )


def sample_responses(plan: Plan, *, policy: str, plan_name: str, scatteritem: str) -> Job:
    shard, shards = map(int, scatteritem.split("-of-"))
    gpus = plan.config.models[plan.base(policy)].engine.tensor_parallel_size

    def needs(read: Read) -> Needs:
        asked = read("requests").rows / shards
        prompts, answers = asked * prompt_tokens(plan, policy), asked * answer_tokens(plan, policy, plan_name)
        merged = plan.adapter(policy) is not None
        workers = plan.workers(policy)
        return resources.sampling(policy_weights(plan, policy), gpus, prompts, answers, merged=merged, workers=workers)

    return Job(
        inputs={
            "requests": paths.REQUESTS.format(policy=policy, plan=plan_name),
            "examples": plan.examples(plan.datasets(policy, plan_name)),
            "adapter": plan.adapter(policy),
            "probe": plan.probe(policy),
        },
        settings={"base": plan.model_settings(policy)},
        details={
            **plan.model_details(policy),
            "adapter": plan.adapter_folder(policy),
            "journal": paths.JOURNAL.format(policy=policy, plan=plan_name),
            "finished": paths.RESPONSES.format(policy=policy, plan=plan_name),
            "shard": shard - 1,
            "shards": shards,
            "beside": [_other(plan, policy, name) for name in plan.request_plans(policy) if name != plan_name],
        },
        modules=(plan.family(policy), *view_modules(plan, requested_views(plan, policy, plan_name))),
        threads=plan.threads(policy),
        gpus=gpus,
        needs=needs,
    )


def _other(plan: Plan, policy: str, name: str) -> dict[str, Any]:
    """Other requests to the same policy: whichever job starts the engine also answers those
    waiting."""
    return {
        "requests": paths.REQUESTS.format(policy=policy, plan=name),
        "journal": paths.JOURNAL.format(policy=policy, plan=name),
        "responses": paths.RESPONSES.format(policy=policy, plan=name),
        "examples": plan.examples(plan.datasets(policy, name)),
    }


def gather_responses(plan: Plan, *, policy: str, plan_name: str) -> Job:
    """The rule adds the shards as an input, because Snakemake sets their number
    (`--set-scatter`)."""
    return Job(
        inputs={"requests": paths.REQUESTS.format(policy=policy, plan=plan_name)},
        details={"journal": paths.JOURNAL.format(policy=policy, plan=plan_name)},
        needs=lambda read: resources.scoring(read("requests").rows),
    )
