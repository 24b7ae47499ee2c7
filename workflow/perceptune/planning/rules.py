"""The rules of the workflow: the outputs, job and stage of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from perceptune.contracts import paths
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import PACKAGE, plugin_errors
from perceptune.contracts.provenance.code import code_digests
from perceptune.planning.diagnostics import diagnosed
from perceptune.planning.job import Job
from perceptune.planning.jobs import attention, data, evaluation, export, judging, preferences, sampling, training
from perceptune.planning.policies import Plan


@dataclass(frozen=True)
class Rule:
    """One rule. The rules file repeats the outputs for Snakemake; a test compares both."""

    job: Callable[..., Job]
    stage: str
    """The stage's function as `module:function`, with the module relative to the package."""
    outputs: tuple[str, ...]

    @property
    def module(self) -> str:
        """The full name of the stage's module."""
        return f"{PACKAGE}.{self.stage.partition(':')[0]}"

    @property
    def function(self) -> str:
        """The name of the stage's function."""
        return self.stage.partition(":")[2]


RULES = {
    "make_shapes": Rule(data.make_shapes, "stages.data.make_shapes:run", (paths.DATA,)),
    "import_examples": Rule(data.import_examples, "stages.data.import_examples:run", (paths.EXAMPLES,)),
    "find_leakage": Rule(data.find_leakage, "stages.data.find_leakage:run", (paths.LEAKAGE,)),
    "compute_attention_maps": Rule(attention.compute_attention_maps, "stages.attention.maps:run", (paths.ATTENTION,)),
    "compute_saliency_maps": Rule(attention.compute_saliency_maps, "stages.attention.saliency:run", (paths.SALIENCY,)),
    "find_crops": Rule(attention.find_crops, "stages.attention.crops:run", (paths.CROPS,)),
    "compute_clip_scores": Rule(attention.compute_clip_scores, "stages.attention.clip_scores:run", (paths.CLIPS,)),
    "plan_samples": Rule(sampling.plan_samples, "stages.sampling.requests:run_samples", (paths.SAMPLE_REQUESTS,)),
    "plan_round": Rule(sampling.plan_round, "stages.sampling.requests:run_round", (paths.ROUND_REQUESTS,)),
    "plan_pairs": Rule(sampling.plan_pairs, "stages.sampling.requests:run_pairs", (paths.PAIR_REQUESTS,)),
    "plan_benchmarks": Rule(
        sampling.plan_benchmarks, "stages.sampling.requests:run_benchmarks", (paths.BENCHMARK_REQUESTS,)
    ),
    "sample_responses": Rule(sampling.sample_responses, "stages.sampling.responses:run", (paths.RESPONSE_SHARD,)),
    "gather_responses": Rule(sampling.gather_responses, "stages.sampling.gather:run", (paths.RESPONSES,)),
    "score_responses": Rule(preferences.score_responses, "stages.preferences.score:run", (paths.REWARDS,)),
    "select_preferences": Rule(
        preferences.select_preferences,
        "stages.preferences.select:run",
        (paths.PREFERENCES, paths.PREFERENCE_STATISTICS),
    ),
    "use_dataset_preferences": Rule(
        preferences.use_dataset_preferences,
        "stages.preferences.dataset_preferences:run",
        (paths.GIVEN, paths.GIVEN_STATISTICS),
    ),
    "select_batch": Rule(
        preferences.select_batch, "stages.preferences.select_batch:run", (paths.BATCH, paths.BATCH_STATISTICS)
    ),
    "make_pairs": Rule(preferences.make_pairs, "stages.preferences.pairs:run", (paths.PAIRS,)),
    "filter_pairs": Rule(
        preferences.filter_pairs, "stages.preferences.filter_pairs:run", (paths.FILTERED_PAIRS, paths.PAIR_STATISTICS)
    ),
    "probe_model": Rule(training.probe_model, "stages.training.probe:run", (paths.PROBE,)),
    "compute_logprobs": Rule(training.compute_logprobs, "stages.training.stored_logprobs:run", (paths.TERMS,)),
    "train_adapter": Rule(
        training.train_adapter, "stages.training.train:run", (paths.ADAPTER, paths.ADAPTER_CONFIG, paths.TRAINING)
    ),
    "keep_epoch": Rule(training.keep_epoch, "stages.training.keep_epoch:run", (paths.ADAPTER, paths.ADAPTER_CONFIG)),
    "train_round": Rule(
        training.train_round,
        "stages.training.train_round:run",
        (paths.ADAPTER, paths.ADAPTER_CONFIG, paths.ROUND, paths.TRAINING),
    ),
    "select_tokens": Rule(
        training.select_tokens, "stages.training.select_tokens:run", (paths.SELECTED, paths.SELECTED_LINES)
    ),
    "measure_gradients": Rule(training.measure_gradients, "stages.training.diagnostics:run", (paths.DIAGNOSTICS,)),
    "judge_answers": Rule(judging.judge_answers, "stages.evaluation.judge_answers:run", (paths.VERDICTS,)),
    "judge_again": Rule(judging.judge_answers, "stages.evaluation.judge_answers:run", (paths.SECOND_VERDICTS,)),
    "judge_comparison": Rule(judging.judge_comparison, "stages.evaluation.judge_comparison:run", (paths.COMPARED,)),
    "measure_comparison": Rule(
        judging.measure_comparison, "stages.evaluation.measure_comparison:run", (paths.COMPARISON,)
    ),
    "label_tokens": Rule(judging.label_tokens, "stages.evaluation.label_tokens:run", (paths.LABELLED_TOKENS,)),
    "measure_agreement": Rule(judging.measure_agreement, "stages.evaluation.measure_agreement:run", (paths.AGREEMENT,)),
    "evaluate_policy": Rule(evaluation.evaluate_policy, "stages.evaluation.evaluate:run", (paths.METRICS,)),
    "compare_controls": Rule(evaluation.compare_controls, "stages.evaluation.compare_controls:run", (paths.CONTROLS,)),
    "collect_metrics": Rule(evaluation.collect_metrics, "stages.evaluation.collect:run", (paths.ALL_METRICS,)),
    "write_report": Rule(
        evaluation.write_report,
        "report.write:run",
        (paths.REPORT, paths.RESULT_TABLE, *(paths.FIGURE.format(figure=figure) for figure in paths.FIGURES)),
    ),
    "export_model": Rule(export.export_model, "stages.export.model:run", (paths.MODEL_PARITY, paths.MODEL_LINEAGE)),
    "write_model_card": Rule(export.write_model_card, "stages.export.card:run", (paths.MODEL_CARD,)),
    "export_preferences": Rule(
        export.export_preferences, "stages.export.preferences:run", (paths.EXPORT, paths.EXPORT_LINEAGE)
    ),
}


def job_of(plan: Plan, rule: str, wildcards: Mapping[str, str]) -> Job:
    """The job that a rule's wildcards stand for. Raises `UserError` for mistakes found only
    here."""
    arguments = {("plan_name" if name == "plan" else name): value for name, value in wildcards.items()}
    with plugin_errors():
        return RULES[rule].job(plan, **arguments)


def exports(plan: Plan) -> list[str]:
    """The files of the target `exports`. Raises `UserError` if the config has none."""
    if not plan.config.exports:
        raise UserError("the config has no `exports`", "docs/exchange.md shows a block")
    return [paths.EXPORT.format(export=name) for name in plan.config.exports]


def code_lines(*modules: str) -> list[str]:
    """A line per module, imports included, so that a dry run shows which one changed."""
    return [f"module {name} {digest[:12]}" for name, digest in code_digests(*modules).items()]


def one_of(names: Iterable[str]) -> str:
    """A regular expression for exactly these names, which keeps similar outputs distinct."""
    return "|".join(map(re.escape, names)) or "(?!)"


def constraints(plan: Plan) -> dict[str, str]:
    """Regular expressions for the wildcards of all rules."""
    config, name = plan.config, "[^/]+"
    lists = one_of([*config.pair_generations, *config.dataset_preferences])
    return {
        **dict.fromkeys(("dataset", "policy", "experiment", "reward", "selection", "batch_selection", "stored"), name),
        "source": one_of(config.sources()),
        "sampling": one_of(config.samplings),
        "rollout": one_of(config.rollouts),
        "pair_generation": one_of(config.pair_generations),
        "dataset_preference": one_of(config.dataset_preferences),
        "export": one_of(config.exports),
        "attention_map": one_of(config.attention_maps),
        "crop": one_of(config.crops),
        "saliency_map": one_of(config.saliency_maps),
        "clip_score": one_of(config.clip_scores),
        "filter": one_of(config.filters),
        "benchmark": one_of(config.benchmarks),
        "comparison": one_of(config.comparisons),
        "agreement": one_of(config.agreements),
        "judge": one_of(config.judges),
        "groups": f"[^/]+/[^/]+/[^/]+|{lists}",
        "plan": "[^/]+/[^/]+|benchmarks",
    }


def rule_constraints(plan: Plan) -> dict[str, dict[str, str]]:
    """Wildcard constraints of single rules, which override the shared ones."""
    experiments, number = plan.config.experiments, f"{paths.ROUND_MARK}[1-9][0-9]*"
    in_rounds = one_of(e for e in experiments if plan.rounds(e))
    selecting = one_of(e for e in experiments if plan.selects_by(e))
    return {
        "probe_model": {"policy": one_of(plan.config.models)},
        "train_adapter": {"experiment": one_of(e for e in experiments if not plan.rounds(e))},
        "keep_epoch": {"experiment": one_of(plan.kept)},
        "train_round": {"experiment": f"({in_rounds}){number}"},
        "select_tokens": {"experiment": f"({selecting}){number}"},
        "measure_gradients": {"experiment": one_of(diagnosed(plan.config))},
        "export_model": {"policy": one_of(plan.trained)},
        "write_model_card": {"policy": one_of(plan.trained)},
    }


def patterns(plan: Plan) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Rule and regular expression of every output, with wildcards as named groups."""
    shared, single = constraints(plan), rule_constraints(plan)
    for name, rule in RULES.items():
        allowed = {"scatteritem": r"\d+-of-\d+", **shared, **single.get(name, {})}
        for output in rule.outputs:
            yield name, re.compile(_expression(output, allowed))


def _expression(output: str, allowed: Mapping[str, str]) -> str:
    parts, seen = re.split(r"\{(\w+)\}", output), set[str]()
    expression = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            expression += re.escape(part)
        else:
            expression += f"(?P={part})" if part in seen else f"(?P<{part}>{allowed[part]})"
            seen.add(part)
    return f"^{expression}$"
