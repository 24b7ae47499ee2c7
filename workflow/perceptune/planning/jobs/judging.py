"""Jobs of judges: verdicts on answers and on pairs of answers, and what is measured from them."""

from __future__ import annotations

from typing import Any

from perceptune.contracts import paths
from perceptune.contracts.config import BenchmarkBlock, ComparisonBlock
from perceptune.contracts.plugins import module_of
from perceptune.planning import resources
from perceptune.planning.benchmarks import (
    benchmark_rewards,
    file_digest,
    judging_settings,
    local_model,
    reward_modules,
    rewards_by_task,
)
from perceptune.planning.comparisons import labelled_policies, policies_of, policy_named
from perceptune.planning.job import Job, Read
from perceptune.planning.policies import Plan, tracked
from perceptune.planning.resources import Needs
from perceptune.planning.sizes import ANSWER, PROMPT, weights_of


def judge_answers(plan: Plan, *, policy: str, benchmark: str, judge: str | None = None) -> Job:
    """Of the benchmark's judge, or of a second one, `judge`, who is asked the same."""
    block = plan.config.benchmarks[benchmark]
    name = judge or str(block.judge)
    inputs = {
        "rewards": benchmark_rewards(plan, policy)[benchmark],
        "examples": paths.EXAMPLES.format(dataset=block.dataset),
    }
    module = module_of("benchmark", str(block.protocol))
    details = {"block": block.model_dump(mode="json")}
    return _asking(plan, name, block.judge_prompt, inputs, details=details, modules=(module,))


def judge_comparison(plan: Plan, *, comparison: str, judge: str) -> Job:
    config = plan.config.comparisons[comparison]
    asked = {
        key: getattr(config, key)
        for key in ("policies", "benchmark", "experiment", "rubric", "orders", "limit", "seed")
    }
    details: dict[str, Any] = {"config": config.model_dump(mode="json"), "given": False}
    modules: tuple[str, ...] = ()
    if config.experiment:
        experiment = plan.block(config.experiment)
        inputs: dict[str, Any] = {
            "preferences": plan.preferences(policies_of(plan.config, config)[0]),
            "examples": paths.EXAMPLES.format(dataset=experiment.dataset),
        }
        details["given"] = experiment.dataset_preference is not None
    else:
        block = plan.config.benchmarks[str(config.benchmark)]
        inputs = _rewards(plan, config, block)
        details["block"] = block.model_dump(mode="json")
        modules = (module_of("benchmark", block.protocol),) if block.protocol else ()
        asked |= {"view": block.views[0], "protocol": block.protocol, "variant": block.variant}
    # the digest of the prompt, not its path, is a setting
    settings = {"asked": {**asked, "policies": config.policies and policies_of(plan.config, config)}}
    each = (2 if config.experiment else 1) * (2 if config.orders == "both" else 1)
    return _asking(plan, judge, config.prompt, inputs, settings=settings, details=details, modules=modules, each=each)


def measure_comparison(plan: Plan, *, comparison: str) -> Job:
    config = plan.config.comparisons[comparison]
    settings: dict[str, Any] = {"config": {**tracked(config), "prompt": None}}
    details: dict[str, Any] = {"config": config.model_dump(mode="json")}
    if config.judge:
        table = paths.COMPARED.format(comparison=comparison, judge=config.judge)
        return Job({"compared": table}, settings, details, needs=lambda read: resources.evaluation(read().rows))
    block = plan.config.benchmarks[str(config.benchmark)]
    own_verdicts = [
        paths.VERDICTS.format(policy=policy, benchmark=config.benchmark)
        for policy in policies_of(plan.config, config)
        if block.judge
    ]
    modules = (
        *([module_of("benchmark", block.protocol)] if block.protocol else []),
        *reward_modules(plan, block.reward),
    )
    return Job(
        inputs={**_rewards(plan, config, block), "verdicts": own_verdicts},
        settings={
            **settings,
            "block": tracked(block),
            "reward_tasks": rewards_by_task(plan.config.rewards[block.reward]),
            "policies": policies_of(plan.config, config),
        },
        details={**details, "block": block.model_dump(mode="json")},
        modules=modules,
        needs=lambda read: resources.evaluation(read().rows),
    )


def label_tokens(plan: Plan, *, agreement: str) -> Job:
    config = plan.config.agreements[agreement]
    policy = policy_named(plan.config, str(config.tokens))
    inputs = {"selected": paths.SELECTED.format(experiment=policy)}
    return _asking(
        plan,
        str(config.judge),
        None,
        inputs,
        settings={"asked": {"policy": policy, "limit": config.limit, "seed": config.seed}},
        details={"config": config.model_dump(mode="json")},
        modules=(),
        most=config.limit,
    )


def measure_agreement(plan: Plan, *, agreement: str) -> Job:
    config = plan.config.agreements[agreement]
    settings: dict[str, Any] = {"config": {**tracked(config), "labels": None}}
    details: dict[str, Any] = {"config": config.model_dump(mode="json")}
    modules: tuple[str, ...] = ()
    inputs: dict[str, Any] = {"people": config.labels}
    if config.labels:  # its content: an edit of the file reruns the job, a copy does not
        settings["labels_digest"] = file_digest(config.labels, "labels")
    if config.tokens:
        inputs["labelled"] = paths.LABELLED_TOKENS.format(agreement=agreement)
        settings |= {"judge": config.judge, "policy": policy_named(plan.config, config.tokens)}
    elif config.comparison:
        comparison = plan.config.comparisons[config.comparison]
        place = {"comparison": config.comparison}
        inputs["compared"] = paths.COMPARED.format(**place, judge=comparison.judge)
        inputs["second"] = paths.COMPARED.format(**place, judge=config.judge) if config.judge else None
        settings["judge"] = comparison.judge
    else:
        block = plan.config.benchmarks[str(config.benchmark)]
        policies = labelled_policies(plan.config, config)
        where = {policy: {"policy": policy, "benchmark": config.benchmark} for policy in policies}
        inputs["verdicts"] = {p: paths.VERDICTS.format(**place) for p, place in where.items()}
        inputs["seconds"] = {
            p: paths.SECOND_VERDICTS.format(**place, judge=config.judge) for p, place in where.items() if config.judge
        }
        settings |= {"judge": block.judge, "view": block.views[0]}
        details["block"] = block.model_dump(mode="json")
        modules = (module_of("benchmark", str(block.protocol)),)
    return Job(inputs, settings, details, modules, undated=("people",) if config.labels else ())


def _rewards(plan: Plan, config: ComparisonBlock, block: BenchmarkBlock) -> dict[str, Any]:
    """The scored answers of both policies, and the questions."""
    policies = policies_of(plan.config, config)
    tables = [benchmark_rewards(plan, policy)[str(config.benchmark)] for policy in policies]
    return {"rewards": tables, "examples": paths.EXAMPLES.format(dataset=block.dataset)}


def _asking(
    plan: Plan,
    judge: str,
    prompt: str | None,
    inputs: dict[str, Any],
    *,
    settings: dict[str, Any] | None = None,
    details: dict[str, Any],
    modules: tuple[str, ...],
    most: int | None = None,
    each: int = 1,
) -> Job:
    """A job that asks a judge up to `each` times about the rows of `rewards`, `preferences` or
    `selected`, or `most` of them."""
    model = local_model(plan, judge)
    served = plan.config.models[model] if model else None
    asked = judging_settings(plan, judge, prompt)

    def needs(read: Read) -> Needs:
        rows = read("rewards", "preferences", "selected").rows
        rows = each * (rows if most is None else min(rows, most))
        if served is None:
            return resources.asking(rows)
        prompts = min(served.max_model_len, PROMPT) * rows
        return resources.sampling(weights_of(plan, served), served.engine.tensor_parallel_size, prompts, ANSWER * rows)

    return Job(
        inputs={**inputs, "probe": plan.probe(model) if model else None},
        settings={**asked, **(settings or {})},
        details={
            **details,
            "name": judge,
            "judge": plan.config.judges[judge].model_dump(mode="json"),
            "model": served and served.model_dump(mode="json"),
            "weights": asked["model"] and asked["model"]["weights"],
            "kept": paths.JUDGED.format(judge=judge),
        },
        modules=(*modules, *([plan.family(model)] if model else [])),
        threads=served.threads if served else 1,
        gpus=served.engine.tensor_parallel_size if served else 0,
        needs=needs,
    )
