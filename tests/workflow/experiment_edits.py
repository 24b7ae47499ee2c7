"""Edits of experiments, controls and diagnostics, which add jobs, and all jobs that each runs."""

from __future__ import annotations

from typing import Any

from .edits import ASK_ROUND, ASKED, CLEAN, REPORT, ROUND
from .needs import BASE, BENCHMARKS, EXPERIMENTS, GIVEN, GRPO, ROUNDS, Job, rerun

ANSWERS = ("sample_responses", "gather_responses", "score_responses")


def _jobs(owner: str, *rules: str) -> set[Job]:
    """One job of each rule."""
    return {(rule, owner) for rule in rules}


def _trained(experiment: str) -> set[Job]:
    """The training of an experiment, and what reads its adapter."""
    return rerun({("train_adapter", experiment)})


def _tested(policy: str) -> set[Job]:
    """The jobs that one more evaluated policy adds."""
    answers = _jobs(f"{policy} {BENCHMARKS}", *ANSWERS)
    return answers | _jobs(policy, "plan_benchmarks", "evaluate_policy") | _jobs("", "collect_metrics", "write_report")


def _on_other(jobs: set[Job]) -> set[Job]:
    """The same jobs with the rollout `later`."""
    return {(rule, owner.replace("shapes/g4", "shapes/later")) for rule, owner in jobs}


FIRST_ROUND = (
    _jobs(BASE, "plan_round", "select_batch")
    | _jobs(f"{BASE} {GRPO}", "compute_logprobs")
    | _jobs(f"{BASE} shapes/g4", *ANSWERS)
)
ROUND_3 = (
    _jobs("grpo@2", "plan_round", "select_batch")
    | _jobs(f"grpo@2 {GRPO}", "compute_logprobs")
    | _jobs("grpo@2 shapes/g4", *ANSWERS)
    | _jobs("grpo@3", "train_round")
    | _tested("grpo@3")
)
"""The jobs that a third round adds; none of the first two rounds reruns."""

TWIN, OF_GIVEN = "sft-on-best-n20-ranked", "sft-on-best-taken"
TWINS = _jobs(f"{TWIN} shapes test", "compute_attention_maps").union(
    *(_jobs(twin, "train_adapter", "compare_controls") | _tested(twin) for twin in (TWIN, OF_GIVEN))
)
CONTROLLED = rerun(ASKED | REPORT) | {("compare_controls", policy) for policy in (*EXPERIMENTS, GIVEN, *ROUNDS)}
"""The jobs that the `controls` switch adds beyond the SFT counterparts: every policy answers more
questions and is compared with the controls.
"""
DIAGNOSED = {("measure_gradients", experiment) for experiment in (*EXPERIMENTS, GIVEN)} | REPORT
"""The jobs that the `diagnostics` section adds: all experiments but those with rounds."""

# (keys, new value, all jobs that run)
EXPERIMENT_EDITS: list[tuple[str, Any, set[Job]]] = [
    (
        "experiments.dpo.model",
        "other",
        _trained("dpo")
        | _jobs("other shapes/n20", *ANSWERS)
        | _jobs("other benchmarks", *ANSWERS)
        | _jobs("other", "plan_samples", "select_preferences", "compute_logprobs", "plan_benchmarks", "evaluate_policy")
        | _jobs("other shapes test", "compute_attention_maps"),
    ),
    (
        "experiments.dpo.dataset",
        "own",
        _trained("dpo")
        | _jobs("own n20", "find_leakage")
        | _jobs("tiny own/n20", *ANSWERS)
        | _jobs(BASE, "plan_samples", "select_preferences", "compute_logprobs"),
    ),
    (
        "experiments.dpo.sampling",
        "other",
        _trained("dpo")
        | _jobs("shapes other", "find_leakage")
        | _jobs("tiny shapes/other", *ANSWERS)
        | _jobs(BASE, "plan_samples", "select_preferences", "compute_logprobs"),
    ),
    (
        "experiments.dpo.reward",
        "other",
        _trained("dpo")
        | _jobs("tiny shapes/n20 other", "score_responses")
        | _jobs(BASE, "select_preferences", "compute_logprobs"),
    ),
    ("experiments.dpo.selection", "other", _trained("dpo") | _jobs(BASE, "select_preferences", "compute_logprobs")),
    (
        "experiments.p2dpo.pair_generation",
        "another",
        _trained("p2dpo")
        | _jobs("shapes another", "find_leakage")
        | _jobs("another", "plan_pairs", "make_pairs")
        | _jobs("central", "filter_pairs")
        | _jobs("tiny shapes/another", "sample_responses", "gather_responses")
        | {("compute_logprobs", f"another {view}") for view in ("original", "enhanced", "degraded", "noise")},
    ),
    (
        "experiments.given.dataset_preference",
        "others",
        _trained("given")
        | _jobs("own others", "find_leakage")
        | _jobs(BASE, "use_dataset_preferences")
        | _jobs("others original", "compute_logprobs"),
    ),
    ("experiments.p2dpo.filter", "other", _trained("p2dpo") | _jobs("other", "filter_pairs")),
    (
        "rollouts.g4.view trainings.grpo.view trainings.papo.view",
        "clean",
        {job for job in rerun(ASK_ROUND) if job[0] != "compute_logprobs"} | CLEAN,
    ),
    ("experiments.grpo.rounds", 3, ROUND_3),
    ("experiments.grpo.evaluate_every", 1, _tested("grpo@1")),
    (
        "experiments.grpo.rollout",
        "later",
        _jobs("shapes later", "find_leakage") | _on_other(rerun(ROUND) | FIRST_ROUND),
    ),
    (
        "experiments.grpo.batch_selection",
        "other",
        rerun(ROUND) | {job for job in FIRST_ROUND if job[0] in ("select_batch", "compute_logprobs")},
    ),
    ("experiments.dpo.training", "perpo", _trained("dpo")),
    (
        "trainings.dpo.epochs trainings.dpo.keep_epochs",
        (2, True),
        _trained("dpo")
        | _jobs("dpo@1", "keep_epoch")
        | _jobs("dpo@1 shapes test", "compute_attention_maps")
        | _tested("dpo@1"),
    ),
    ("controls.prompts", ["Well? {question}"], CONTROLLED | TWINS),
    ("controls.blank", False, CONTROLLED | TWINS),
    ("controls.sigmas", [0.3], CONTROLLED | TWINS),
    ("controls.n", 5, CONTROLLED | TWINS),
    ("controls.sft_on_best", False, CONTROLLED),
    ("diagnostics.groups", 8, DIAGNOSED),
    ("diagnostics.seed", 1, DIAGNOSED),
    ("diagnostics.experiments", ["dpo"], _jobs("dpo", "measure_gradients") | REPORT),
    (
        "experiments.dpo.benchmarks",
        ["own-test"],
        rerun(_jobs("dpo", "plan_benchmarks", "evaluate_policy") | REPORT),
    ),
]
