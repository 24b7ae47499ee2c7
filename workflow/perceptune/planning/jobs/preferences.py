"""Jobs that turn responses into rewards and preferences."""

from __future__ import annotations

from perceptune.contracts import paths
from perceptune.planning import resources
from perceptune.planning.benchmarks import reward_modules, scored_settings
from perceptune.planning.job import Job
from perceptune.planning.jobs.data import without_leakage
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.views import clip_scores, view_modules, views_of


def score_responses(plan: Plan, *, policy: str, plan_name: str, reward: str) -> Job:
    settings = scored_settings(plan, policy, plan_name, reward)
    return Job(
        inputs={
            "requests": paths.REQUESTS.format(policy=policy, plan=plan_name),
            "responses": paths.RESPONSES.format(policy=policy, plan=plan_name),
            "examples": plan.examples(plan.datasets(policy, plan_name)),
        },
        settings={
            "scored": settings,
            "base": plan.model_settings(policy),
            "reasoning": tracked(plan.config.models[plan.base(policy)])["reasoning"],
        },
        details={
            **plan.model_details(policy),
            "config": plan.config.rewards[reward].model_dump(mode="json"),
            "benchmarks": settings["benchmarks"],
            "resources": settings["resources"],
        },
        modules=(plan.family(policy), *reward_modules(plan, reward)),
        needs=lambda read: resources.scoring(read("responses").rows),
    )


def select_preferences(plan: Plan, *, policy: str, dataset: str, sampling: str, reward: str, selection: str) -> Job:
    place = {"policy": policy, "dataset": dataset, "sampling": sampling}
    return Job(
        inputs={
            "requests": paths.SAMPLE_REQUESTS.format(**place),
            "responses": paths.SAMPLE_RESPONSES.format(**place),
            "rewards": paths.SAMPLE_REWARDS.format(**place, reward=reward),
        },
        settings={"config": tracked(plan.config.selections[selection])},
        needs=lambda read: resources.scoring(read("responses").rows),
    )


def use_dataset_preferences(plan: Plan, *, policy: str, dataset: str, dataset_preference: str) -> Job:
    leakage, refused = without_leakage(plan, dataset, dataset_preference)
    return Job(
        inputs={"examples": paths.EXAMPLES.format(dataset=dataset), **leakage},
        settings={
            "config": tracked(plan.config.dataset_preferences[dataset_preference]),
            "base": plan.model_settings(policy),
        },
        details={**plan.model_details(policy), **refused},
        modules=(plan.family(policy),),
        undated=tuple(leakage),
        needs=lambda read: resources.tables(read(), tokenizer=True),
    )


def select_batch(plan: Plan, *, policy: str, dataset: str, rollout: str, reward: str, batch_selection: str) -> Job:
    place = {"policy": policy, "dataset": dataset, "rollout": rollout}
    return Job(
        inputs={
            "requests": paths.ROUND_REQUESTS.format(**place),
            "responses": paths.ROUND_RESPONSES.format(**place),
            "rewards": paths.ROUND_REWARDS.format(**place, reward=reward),
        },
        settings={"config": tracked(plan.config.batch_selections[batch_selection])},
    )


def make_pairs(plan: Plan, *, policy: str, dataset: str, pair_generation: str) -> Job:
    place = {"policy": policy, "dataset": dataset, "pair_generation": pair_generation}
    block = plan.config.pair_generations[pair_generation]
    return Job(
        inputs={
            "requests": paths.PAIR_REQUESTS.format(**place),
            "responses": paths.PAIR_RESPONSES.format(**place),
            "examples": paths.EXAMPLES.format(dataset=dataset),
        },
        settings={"loss_prompt": block.loss_prompt},  # the requests hold everything else
        details={"config": block.model_dump(mode="json")},
        modules=tuple(view_modules(plan, views_of(block))),
    )


def filter_pairs(plan: Plan, *, policy: str, dataset: str, pair_generation: str, filter: str) -> Job:
    stored = paths.stored_name([("reference", "original")])
    return Job(
        inputs={
            "pairs": paths.PAIRS.format(policy=policy, dataset=dataset, pair_generation=pair_generation),
            "terms": paths.TERMS.format(policy=policy, dataset=dataset, groups=pair_generation, stored=stored),
            "clips": clip_scores(plan, policy, dataset, pair_generation, filter),
        },
        settings={"config": tracked(plan.config.filters[filter])},
    )
