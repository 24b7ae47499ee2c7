"""Jobs that evaluate policies and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceptune.contracts import paths
from perceptune.contracts.paths import (
    ATTENTION,
    CROPS,
    EXAMPLES,
    FILTERED_PAIRS,
    GIVEN_STATISTICS,
    PAIR_STATISTICS,
    PREFERENCE_STATISTICS,
)
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.core.methods.method import Stored
from perceptune.planning import resources
from perceptune.planning.benchmarks import (
    attention_tables,
    benchmark_details,
    benchmark_rewards,
    benchmark_settings,
    datasets_measured,
    reward_modules,
    reward_tasks,
    verdict_tables,
)
from perceptune.planning.controls import gaussian_sigma
from perceptune.planning.diagnostics import diagnosed
from perceptune.planning.job import Job
from perceptune.planning.origin import is_bundled
from perceptune.planning.policies import Plan, parted, tracked
from perceptune.planning.views import pair_crop

PACKAGE_FOLDER = Path(__file__).parents[2]


def evaluate_policy(plan: Plan, *, policy: str) -> Job:
    base = plan.base(policy)
    trained = plan.experiment(policy) is not None
    attention = attention_tables(plan, policy)
    of_base = attention_tables(plan, base)
    rewards, verdicts = benchmark_rewards(plan, policy), verdict_tables(plan, policy)
    base_rewards = benchmark_rewards(plan, base, policy) if trained else None
    base_attention = {name: of_base[name] for name in attention} if trained else None
    base_verdicts = verdict_tables(plan, base, policy) if trained else {}
    return Job(
        inputs={
            "rewards": _each(rewards),
            "base_rewards": _each(base_rewards or {}),
            "attention": attention,
            "base_attention": list((base_attention or {}).values()),
            "examples": plan.examples(datasets_measured(plan, policy)),
            "verdicts": verdicts,
            "base_verdicts": list(base_verdicts.values()),
        },
        settings={**_settings(plan, policy), "weights": plan.model_settings(policy), "base": base},
        details={
            **plan.model_details(policy),
            "rewards": rewards,
            "base_rewards": base_rewards,
            "base_attention": base_attention,
            "base_verdicts": base_verdicts,
            "benchmarks": benchmark_details(plan, policy),
        },
        modules=_modules(plan, policy),
        needs=lambda read: resources.evaluation(read().rows),
    )


def compare_controls(plan: Plan, *, policy: str) -> Job:
    compared = {"policy": policy, "base": plan.base(policy), "twin": plan.counterpart(policy)}
    rewards = {role: benchmark_rewards(plan, name, policy) for role, name in compared.items() if name}
    verdicts = {role: verdict_tables(plan, name, policy) for role, name in compared.items() if name}
    scored = {
        role: name and {"policy": name, "rewards": rewards[role], "verdicts": verdicts[role]}
        for role, name in compared.items()
    }
    return Job(
        inputs={
            "rewards": _each(rewards["policy"]),
            "base_rewards": _each(rewards["base"]),
            "twin_rewards": _each(rewards.get("twin", {})),
            "examples": plan.examples(datasets_measured(plan, policy)),
            "verdicts": list(verdicts["policy"].values()),
            "base_verdicts": list(verdicts["base"].values()),
            "twin_verdicts": list(verdicts.get("twin", {}).values()),
        },
        settings={**_settings(plan, policy), "compared": compared},
        details={**scored, "benchmarks": benchmark_details(plan, policy)},
        modules=_modules(plan, policy),
        needs=lambda read: resources.evaluation(read().rows),
    )


def collect_metrics(plan: Plan) -> Job:
    return Job({"metrics": [paths.METRICS.format(policy=policy) for policy in plan.policies]})


def write_report(plan: Plan) -> Job:
    training = {e: paths.TRAINING.format(experiment=e) for e in plan.trained}
    rounds = {e: _rounds(plan, e) for e in plan.config.experiments if plan.rounds(e)}
    pairs, selected = pair_tables(plan), statistics(plan)
    predictions = {policy: benchmark_rewards(plan, policy) for policy in plan.policies}
    examples = plan.examples(plan.benchmark_datasets)
    controls = {policy: paths.CONTROLS.format(policy=policy) for policy in plan.controlled}
    leakage = plan.leakage(plan.config.experiments)
    given = given_logprobs(plan)
    diagnostics = {e: paths.DIAGNOSTICS.format(experiment=e) for e in diagnosed(plan.config)}
    comparisons = {name: paths.COMPARISON.format(comparison=name) for name in plan.config.comparisons}
    agreements = {name: paths.AGREEMENT.format(agreement=name) for name in plan.config.agreements}
    contents = {
        "training": training,
        "rounds": rounds,
        "statistics": selected,
        "pairs": pairs,
        "noise": noise_levels(plan),
        "controls": controls,
        "twinless": plan.without_counterpart(),
        "predictions": predictions,
        "examples": examples,
        "base": {policy: plan.base(policy) for policy in plan.policies},
        "leakage": leakage,
        "leakage_mode": plan.config.leakage,
        "given": given,
        "tokens": _selected(plan),
        "epochs": {e: _epochs(plan, e) for e in plan.config.experiments if plan.epochs(e)},
        "diagnostics": diagnostics,
        "comparisons": comparisons,
        "agreements": agreements,
    }
    return Job(
        inputs={
            "metrics": paths.ALL_METRICS,
            "training": training,
            "rounds": [of["marks"] for of in rounds.values()],
            "statistics": selected,
            "pairs": sorted({table for tables in pairs.values() for table in tables.values()}),
            "predictions": sorted({table for tables in predictions.values() for table in tables.values()}),
            "examples": examples,
            "controls": controls,
            "leakage": leakage,
            "given": given,
            "tokens": _selected(plan),
            "diagnostics": diagnostics,
            "comparisons": comparisons,
            "agreements": agreements,
        },
        settings={
            "config": tracked(plan.config.report),
            "templates": {
                file.name: sha256_of_file(file) for file in sorted((PACKAGE_FOLDER / "report").glob("*.jinja"))
            },
            "benchmarks": {name: tracked(block) for name, block in plan.config.benchmarks.items()},
            "shown": contents,
        },
        details={
            **contents,
            "notices": _notices(plan),  # no setting: the path of a model does not change its answers
            "benchmarks": {name: block.model_dump(mode="json") for name, block in plan.config.benchmarks.items()},
            "figures": {figure: paths.FIGURE.format(figure=figure) for figure in paths.FIGURES},
        },
        needs=lambda read: resources.report(read("predictions").rows),
    )


def _notices(plan: Plan) -> list[str]:
    """What the report says first: which models cannot know the images of the benchmarks."""
    if all(plan.config.datasets[name].kind == "shapes" for name in plan.benchmark_datasets):
        return []
    return [
        f"`{name}` is the bundled tiny model, which knows only coloured shapes: results on other images mean nothing"
        for name in dict.fromkeys(plan.base(policy) for policy in plan.policies)
        if is_bundled(plan.config.models[name].path)
    ]


def _rounds(plan: Plan, experiment: str) -> dict[str, Any]:
    """The evaluated rounds, number to policy, and the status file of the last round."""
    tested = {parted(policy)[1]: policy for policy in plan.tested(experiment)}
    return {"policies": tested, "marks": paths.ROUND.format(experiment=plan.rounds(experiment)[-1])}


def _selected(plan: Plan) -> dict[str, str]:
    """Experiment to the selected tokens of its last round, if the report shows them."""
    shown = [e for e in plan.config.experiments if plan.config.report.tokens and plan.selects_by(e)]
    return {e: paths.SELECTED.format(experiment=plan.tested(e)[-1]) for e in shown}


def _epochs(plan: Plan, experiment: str) -> dict[str, float]:
    """The policies of an experiment's kept epochs, and itself, each with its epoch."""
    return {p: parted(p)[1] or plan.training(experiment).epochs for p in plan.tested(experiment)}


def _settings(plan: Plan, policy: str) -> dict[str, Any]:
    """The benchmark blocks of a policy and the reward of each task, which determines the
    metrics."""
    return {"blocks": benchmark_settings(plan, policy), "reward_tasks": reward_tasks(plan, policy)}


def _modules(plan: Plan, policy: str) -> tuple[str, ...]:
    """The plug-ins that declare the metrics of a policy's benchmarks: protocols and rewards."""
    blocks = [plan.config.benchmarks[b] for b in plan.benchmarks(policy)]
    protocols = sorted({block.protocol for block in blocks if block.protocol})
    rewards = sorted({module for block in blocks for module in reward_modules(plan, block.reward)})
    return (*(module_of("benchmark", name) for name in protocols), *rewards)


def _each(tables: dict[str, str]) -> list[str]:
    """The tables without duplicates: benchmarks can share one."""
    return sorted(set(tables.values()))


def statistics(plan: Plan) -> dict[str, str]:
    """Label to the selection statistics of every experiment's lists, without duplicates."""
    tables = [
        plan.samples(e) for e, block in plan.config.experiments.items() if block.selection or block.dataset_preference
    ]
    patterns = {"selection": PREFERENCE_STATISTICS, "dataset_preference": GIVEN_STATISTICS}
    return {"/".join(t.values()): pattern.format(**t) for t in tables for key, pattern in patterns.items() if key in t}


def given_logprobs(plan: Plan) -> dict[str, str]:
    """Label to the base model's log-probs of every experiment's dataset preferences, for those that
    the training needs anyway."""
    wanted, found = Stored("reference", "original"), dict[str, str]()
    for experiment, block in plan.config.experiments.items():
        table = plan.stored_logprobs(experiment).get(wanted) if block.dataset_preference else None
        if table:
            found.setdefault("/".join(plan.samples(experiment).values()), table)
    return found


def pair_tables(plan: Plan) -> dict[str, dict[str, str]]:
    """Label to the tables behind every experiment's pairs, without duplicates.

    The tables are statistics, preferences, examples and, with a crop, attention and crops.
    """
    found = {}
    for experiment, block in plan.config.experiments.items():
        if not block.pair_generation:
            continue
        made = plan.samples(experiment)
        tables = {
            "statistics": PAIR_STATISTICS.format(**made),
            "preferences": FILTERED_PAIRS.format(**made),
            "examples": EXAMPLES.format(dataset=block.dataset),
        }
        crop = pair_crop(plan, block.pair_generation)
        if crop:
            attention = plan.config.crops[crop].attention_map
            place = {"policy": block.model, "dataset": block.dataset}
            tables["attention"] = ATTENTION.format(attention_map=attention, **place)
            tables["crops"] = CROPS.format(crop=crop, **place)
        found["/".join(made.values())] = tables
    return found


def noise_levels(plan: Plan) -> dict[str, float]:
    """Sigma of the benchmarks' noisy views and of the clean view, in ascending order."""
    views = [view for b in plan.config.benchmarks.values() for view in b.views]
    found = {}
    for view in dict.fromkeys(views):
        block = plan.config.views.get(view)
        if block and (sigma := gaussian_sigma(block)) is not None:
            found[view] = sigma
    return dict(sorted({"original": 0.0, **found}.items(), key=lambda item: item[1])) if found else {}
