"""Benchmarks of a policy: their settings, rewards, judges and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceptune.contracts.config import BenchmarkBlock, RewardBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import ATTENTION, REWARDS, VERDICTS
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.code import MEMORY
from perceptune.contracts.provenance.digests import digest_of_folder
from perceptune.planning.policies import Plan, tracked


def attention_tables(plan: Plan, policy: str) -> dict[str, str]:
    """Benchmark to a policy's attention maps, for benchmarks that measure attention."""
    blocks_of = {b: plan.config.benchmarks[b] for b in plan.benchmarks(policy)}
    return {
        name: ATTENTION.format(policy=policy, dataset=block.dataset, attention_map=block.attention_map)
        for name, block in blocks_of.items()
        if block.attention_map
    }


def verdict_tables(plan: Plan, policy: str, benchmarks_of: str | None = None) -> dict[str, str]:
    """Benchmark to the judge's verdicts on a policy's answers, for benchmarks with a judge.

    `benchmarks_of` limits them to the benchmarks of another policy.
    """
    names = plan.benchmarks(benchmarks_of or policy)
    return {b: VERDICTS.format(policy=policy, benchmark=b) for b in names if plan.config.benchmarks[b].judge}


def local_model(plan: Plan, judge: str) -> str | None:
    """The model of the config that a judge is; None for an endpoint."""
    block = plan.config.judges[judge]
    return block.model if block.url is None else None


def judging_settings(plan: Plan, judge: str, prompt: str | None) -> dict[str, Any]:
    """A judge with the user's prompt, as a tracked setting with digests instead of paths."""
    model = local_model(plan, judge)
    return {
        "name": judge,
        "judge": tracked(plan.config.judges[judge]),
        "model": model and plan.model_settings(model),
        "reasoning": model and tracked(plan.config.models[model])["reasoning"],
        "prompt": prompt and file_digest(prompt, "judge prompt"),
    }


def datasets_measured(plan: Plan, policy: str) -> list[str]:
    """The datasets whose examples a policy's published benchmarks read to compute metrics."""
    blocks_of = [plan.config.benchmarks[b] for b in plan.benchmarks(policy)]
    return list(dict.fromkeys(block.dataset for block in blocks_of if block.protocol))


def scored_settings(plan: Plan, policy: str, plan_name: str, reward: str) -> dict[str, Any]:
    """A reward block as a tracked setting, with a digest of its resources instead of their path.

    The key `benchmarks` lists the benchmarks that it scores; None for training responses.
    """
    block = plan.config.rewards[reward]
    benchmarks = plan.benchmarks(policy) if plan_name == "benchmarks" else []
    scored = [b for b in benchmarks if plan.config.benchmarks[b].reward == reward]
    settings = {**tracked(block), "benchmarks": scored if plan_name == "benchmarks" else None}
    if resources := block.resources:
        settings["resources"] = plan.remembered(f"resources {reward}", lambda: resources_digest(resources))
    return settings


def benchmark_rewards(plan: Plan, policy: str, benchmarks_of: str | None = None) -> dict[str, str]:
    """Benchmark to the rewards of a policy's answers.

    `benchmarks_of` limits them to the benchmarks of another policy.
    """
    names = plan.benchmarks(benchmarks_of or policy)
    rewards = {b: plan.config.benchmarks[b].reward for b in names}
    return {b: REWARDS.format(policy=policy, plan="benchmarks", reward=r) for b, r in rewards.items()}


def benchmark_blocks(plan: Plan, policy: str) -> dict[str, BenchmarkBlock]:
    """The benchmark blocks of a policy. Only base models are evaluated on additional
    prompts."""
    blocks_of = {b: plan.config.benchmarks[b] for b in plan.benchmarks(policy)}
    if plan.experiment(policy) is None:
        return blocks_of
    return {b: block.model_copy(update={"prompts": ()}) for b, block in blocks_of.items()}


def benchmark_details(plan: Plan, policy: str) -> dict[str, Any]:
    """The complete benchmark blocks of a policy, untracked keys included."""
    return {b: block.model_dump(mode="json") for b, block in benchmark_blocks(plan, policy).items()}


def benchmark_settings(plan: Plan, policy: str) -> dict[str, Any]:
    """The benchmark blocks of a policy as a tracked setting."""
    return {b: tracked(block) for b, block in benchmark_blocks(plan, policy).items()}


def reward_tasks(plan: Plan, policy: str) -> dict[str, dict[str, str]]:
    """Reward block to the reward of each task, for the blocks of a policy's benchmarks."""
    used = {plan.config.benchmarks[b].reward: None for b in plan.benchmarks(policy)}
    return {name: rewards_by_task(plan.config.rewards[name]) for name in used}


def rewards_by_task(block: RewardBlock) -> dict[str, str]:
    """The name of the reward of each task."""
    return {str(task): reward for task, reward in block.tasks.items()}


def reward_modules(plan: Plan, reward: str) -> list[str]:
    """The modules of a block's rewards."""
    return [module_of("reward", name) for name in sorted(set(plan.config.rewards[reward].tasks.values()))]


def file_digest(file: str, what: str) -> str:
    """Digest of a file that the config names. Raises `UserError` if it does not exist."""
    if not Path(file).is_file():
        raise UserError(f"{what} `{file}` does not exist", "paths are relative to the working directory")
    return next(MEMORY.sha256_of_files([Path(file)]))


def resources_digest(folder: str) -> str:
    """Digest of a folder with language resources. Raises `UserError` if it does not exist."""
    if not Path(folder).is_dir():
        raise UserError(f"resources folder `{folder}` does not exist", "paths are relative to the working directory")
    return digest_of_folder(Path(folder), MEMORY)
