"""What an edit should rerun, written down by hand: the jobs of the `finished` chain and what each needs.

A job is (rule, whose): a policy or experiment, a dataset, or nothing where there is one job.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

BASE = "tiny"
EXPERIMENTS = ("dpo", "perpo")
POLICIES = (BASE, *EXPERIMENTS)
SAMPLES, BENCHMARKS = "shapes/n20", "benchmarks"

Job = tuple[str, str]


def _needs() -> dict[Job, set[Job]]:
    """Job to the jobs whose tables it reads."""
    shapes, own = ("import_examples", "shapes"), ("import_examples", "own")
    needs: dict[Job, set[Job]] = {
        ("make_shapes", "shapes"): set(),
        shapes: {("make_shapes", "shapes")},
        own: set(),
        ("plan_samples", BASE): {shapes},
    }

    def answers(policy: str, plan: str, requests: Job, examples: set[Job]) -> None:
        whose = f"{policy} {plan}"
        trained = {("train_adapter", policy)} if policy in EXPERIMENTS else set()
        needs["sample_responses", whose] = {requests, *examples, *trained}
        needs["gather_responses", whose] = {requests, ("sample_responses", whose)}
        needs["score_responses", whose] = {requests, ("gather_responses", whose), *examples}

    answers(BASE, SAMPLES, ("plan_samples", BASE), {shapes})
    samples = f"{BASE} {SAMPLES}"
    select, terms = ("select_preferences", BASE), ("compute_terms", BASE)
    needs[select] = {("plan_samples", BASE), ("gather_responses", samples), ("score_responses", samples)}
    needs[terms] = {select, shapes}
    for experiment in EXPERIMENTS:
        needs["train_adapter", experiment] = {select, terms, shapes}
    for policy in POLICIES:
        # dpo is not asked about the user's own images
        examples = {shapes} if policy == "dpo" else {shapes, own}
        needs["plan_benchmarks", policy] = examples
        answers(policy, BENCHMARKS, ("plan_benchmarks", policy), examples)
        scored = {("score_responses", f"{p} {BENCHMARKS}") for p in {BASE, policy}}
        needs["evaluate_policy", policy] = scored
    evaluated = {("evaluate_policy", policy) for policy in POLICIES}
    needs["collect_metrics", ""] = evaluated
    trained = {("train_adapter", experiment) for experiment in EXPERIMENTS}
    predictions = {("score_responses", f"{p} {BENCHMARKS}") for p in POLICIES}
    needs["write_report", ""] = {("collect_metrics", ""), select, shapes, own, *trained, *predictions}
    return needs


NEEDS = _needs()


def rerun(roots: Iterable[Job]) -> set[Job]:
    """The roots and everything that reads, directly or not, what they write."""
    jobs = set(roots)
    while more := {job for job, needed in NEEDS.items() if needed & jobs} - jobs:
        jobs |= more
    return jobs


def every(*rules: str) -> set[Job]:
    """All jobs of these rules."""
    return {job for job in NEEDS if job[0] in rules}


MODEL = every("sample_responses", "score_responses", "compute_terms", "train_adapter", "evaluate_policy")
"""What looks at a model block."""
ASKED = every("plan_benchmarks", "evaluate_policy")
ASKED_OWN = {job for job in ASKED if job[1] != "dpo"}
EVALUATED = every("evaluate_policy")
GENERATE = {("make_shapes", "shapes")}
IMPORT = {("import_examples", "own")}
PLAN = {("plan_samples", BASE)}
SELECT = {("select_preferences", BASE)}
SCORE = every("score_responses")
TRAIN = {("train_adapter", "dpo")}
REPORT = {("write_report", "")}
NOTHING: set[Job] = set()

# (key, another value, jobs that run first); `replaced` names a block that the key is moved to, see `test_mutations`
EDITS: list[tuple[str, Any, set[Job]]] = [
    ("models.tiny.path", "same-model", NOTHING),  # a folder with the same contents
    ("models.tiny.family", "qwen2_5_vl", MODEL),
    ("models.tiny.coordinates", "thousand", MODEL),
    ("models.tiny.max_model_len", 500, MODEL),
    ("models.tiny.dtype", "bfloat16", MODEL),
    ("models.tiny.trust_remote_code", True, MODEL),
    ("models.tiny.engine.tensor_parallel_size", 2, NOTHING),
    ("models.tiny.engine.gpu_memory_utilization", 0.5, NOTHING),
    ("models.tiny.engine.enforce_eager", False, NOTHING),
    ("models.tiny.engine.max_num_seqs", 8, NOTHING),
    ("models.tiny.engine.max_lora_rank", 64, NOTHING),
    ("models.tiny.engine.answers_per_part", 7, NOTHING),
    ("models.tiny.engine.batch_invariant", True, NOTHING),
    ("models.tiny.engine.adapters", "request", NOTHING),
    ("datasets.shapes.seed", 1, GENERATE),
    ("datasets.shapes.train", {"grounding": 47}, GENERATE),
    ("datasets.shapes.validation", {"grounding": 5}, GENERATE),
    ("datasets.shapes.test", {"grounding": 23}, GENERATE),
    ("datasets.own.path", "own/other.jsonl", IMPORT),
    ("datasets.own.images", "own/", IMPORT),
    ("datasets.own.coordinates", "thousand", IMPORT),
    ("datasets.own.watch_images", False, IMPORT),  # another digest, of less
    ("datasets.own.task", "ocr", IMPORT),
    ("datasets.own.split", "validation", IMPORT),
    ("datasets.own.max_failed", 0.5, IMPORT),
    ("datasets.own.max_failed_rows", 3, IMPORT),
    ("samplings.n20.n", 7, PLAN),
    ("samplings.n20.temperature", 0.9, PLAN),
    ("samplings.n20.top_p", 0.9, PLAN),
    ("samplings.n20.top_k", 5, PLAN),
    ("samplings.n20.max_tokens", 23, PLAN),
    ("samplings.n20.seed", 1, PLAN),
    ("samplings.n20.split", "test", PLAN),
    ("samplings.n20.tasks", ["grounding"], PLAN),
    ("samplings.n20.limit", 40, PLAN),
    ("samplings.n20.view", "blank", PLAN),
    ("samplings.n20.prompt", "{question} Answer.", PLAN),
    ("rewards.perception.tasks", {"grounding": "iou"}, SCORE),
    ("rewards.perception.max_failed", 0.5, SCORE),
    ("rewards.perception.max_failed_rows", 3, SCORE),
    ("selections.ranked.list_size", 3, SELECT),
    ("selections.ranked.min_margin", 0.2, SELECT),
    ("selections.ranked.min_list_size", 3, SELECT),
    ("selections.ranked.deduplicate", False, SELECT),
    ("selections.ranked.pick", "first", SELECT),
    ("selections.ranked.max_groups", 30, SELECT),
    ("selections.ranked.seed", 1, SELECT),
    ("trainings.dpo.method", "lipo", TRAIN),
    ("trainings.dpo.parameters", {"beta": 0.2}, TRAIN),
    ("trainings.dpo.view", "blank", TRAIN | {("compute_terms", "blank")}),
    ("trainings.dpo.lora.r", 16, TRAIN),
    ("trainings.dpo.lora.alpha", 32, TRAIN),
    ("trainings.dpo.lora.dropout", 0.1, TRAIN),
    ("trainings.dpo.lora.target_modules", ["q_proj"], TRAIN),
    ("trainings.dpo.learning_rate", 2.0e-4, TRAIN),
    ("trainings.dpo.scheduler", "linear", TRAIN),
    ("trainings.dpo.warmup_ratio", 0.1, TRAIN),
    ("trainings.dpo.weight_decay", 0.1, TRAIN),
    ("trainings.dpo.max_grad_norm", 0.5, TRAIN),
    ("trainings.dpo.epochs", 2, TRAIN),
    ("trainings.dpo.batch_size", 8, TRAIN),
    ("trainings.dpo.micro_batch_size", 2, NOTHING),
    ("trainings.dpo.devices", 2, NOTHING),
    ("trainings.dpo.gradient_checkpointing", True, NOTHING),
    ("trainings.dpo.save_steps", 7, NOTHING),
    ("trainings.dpo.seed", 43, TRAIN),
    ("benchmarks.own-test.dataset", "shapes", ASKED_OWN | REPORT),
    ("benchmarks.own-test.reward", "other", {("score_responses", "tiny benchmarks other"), ("score_responses", "perpo benchmarks other"), *EVALUATED - {("evaluate_policy", "dpo")}}),
    ("benchmarks.own-test.split", "validation", ASKED_OWN | REPORT),
    ("benchmarks.own-test.tasks", ["grounding"], ASKED_OWN | REPORT),
    ("benchmarks.own-test.limit", 3, ASKED_OWN | REPORT),
    ("benchmarks.own-test.n", 2, ASKED_OWN | REPORT),
    ("benchmarks.own-test.temperature", 0.9, ASKED_OWN | REPORT),
    ("benchmarks.own-test.top_p", 0.9, ASKED_OWN | REPORT),
    ("benchmarks.own-test.max_tokens", 23, ASKED_OWN | REPORT),
    ("benchmarks.own-test.views", ["original"], ASKED_OWN | REPORT),
    ("benchmarks.own-test.prompt", "{question} Answer.", ASKED_OWN | REPORT),
    ("benchmarks.own-test.seed", 1, ASKED_OWN | REPORT),
    ("benchmarks.own-test.resamples", 98, EVALUATED - {("evaluate_policy", "dpo")} | REPORT),
    ("report.title", "Another", REPORT),
    ("report.caption", "Other words.", REPORT),
    ("report.gallery", 3, REPORT),
]  # fmt: skip
