"""Jobs that turn responses into rewards and preferences, and jobs of judges."""

from __future__ import annotations

from perceptune.contracts import paths
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.plugins import module_of
from perceptune.planning import resources
from perceptune.planning.benchmarks import (
    benchmark_rewards,
    judged_model,
    judging_settings,
    reward_modules,
    scored_settings,
)
from perceptune.planning.job import Job
from perceptune.planning.jobs.data import without_leakage
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.resources import Needs, Table
from perceptune.planning.sizes import ANSWER, PROMPT, weights_of
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
        threads=2,
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


def judge_answers(plan: Plan, *, policy: str, benchmark: str) -> Job:
    block, model = plan.config.benchmarks[benchmark], judged_model(plan, benchmark)
    judge = plan.config.judges[str(block.judge)]
    settings = judging_settings(plan, benchmark)
    served = plan.config.models[model] if model else None
    return Job(
        inputs={
            "rewards": benchmark_rewards(plan, policy)[benchmark],
            "examples": paths.EXAMPLES.format(dataset=block.dataset),
        },
        settings=settings,
        details={
            "name": block.judge,
            "judge": judge.model_dump(mode="json"),
            "block": block.model_dump(mode="json"),
            "model": served and served.model_dump(mode="json"),
            "weights": settings["model"] and settings["model"]["weights"],
            "kept": paths.JUDGED.format(judge=block.judge),
        },
        modules=(module_of("benchmark", str(block.protocol)), *([plan.family(model)] if model else [])),
        threads=served.threads if served else 1,
        gpus=served.engine.tensor_parallel_size if served else 0,
        needs=lambda read: _judging(plan, served, read("rewards")),
    )


def _judging(plan: Plan, served: ModelBlock | None, answers: Table) -> Needs:
    """What the judge of so many answers needs: those of a local model, or to wait for an endpoint."""
    if served is None:
        return resources.asking(answers.rows)
    prompts = min(served.max_model_len, PROMPT) * answers.rows
    return resources.sampling(
        weights_of(plan, served), served.engine.tensor_parallel_size, prompts, ANSWER * answers.rows
    )
