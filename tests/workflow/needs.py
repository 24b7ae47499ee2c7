"""The jobs of the `finished` chain and their inputs, written by hand, and so what an edit should rerun.

A job is (rule, owner). The owner is a policy, an experiment or a dataset, or empty if the rule has
a single job.
"""

from __future__ import annotations

from collections.abc import Iterable

BASE = "tiny"
EXPERIMENTS = ("dpo", "perpo", "p2dpo")
POLICIES = (BASE, *EXPERIMENTS)
GIVEN = "given"
ROUNDS = ("grpo@2", "papo@1")
"""The evaluated rounds, which are the last ones."""
GRPO, PAPO = "old@original+reference@original", "old@either+old@original+reference@original"
SAMPLES, BENCHMARKS = "shapes/n20", "benchmarks"

Job = tuple[str, str]


def _needs() -> dict[Job, set[Job]]:
    """Maps a job to the jobs whose tables it reads. Those that plan what to train on also wait for
    `find_leakage`, but its results rerun nothing.
    """
    shapes, own = ("import_examples", "shapes"), ("import_examples", "own")
    needs: dict[Job, set[Job]] = {
        ("make_shapes", "shapes"): set(),
        shapes: {("make_shapes", "shapes")},
        own: set(),
        ("plan_samples", BASE): {shapes},
        ("find_leakage", "shapes n20"): {shapes, own},
        ("find_leakage", "shapes self-made"): {shapes},
        ("find_leakage", "shapes g4"): {shapes, own},
        ("find_leakage", "own taken"): {own},
    }
    select = _lists(needs, shapes)
    pairs = _pairs(needs, shapes)
    for policy in POLICIES:
        needs["compute_attention_maps", f"{policy} shapes test"] = {shapes, *_made(policy)}
        # dpo and p2dpo are not evaluated on the user's own images
        _evaluated(needs, policy, {shapes, own} if policy in (BASE, "perpo") else {shapes})
        looked = {("compute_attention_maps", f"{p} shapes test") for p in (BASE, policy)}
        needs["evaluate_policy", policy] |= looked
    rounds = _rounds(needs, shapes)
    taken = _given(needs, own)
    for policy in (*ROUNDS, GIVEN):
        _evaluated(needs, policy, {own})
    evaluated = (*POLICIES, *ROUNDS, GIVEN)
    needs["collect_metrics", ""] = {("evaluate_policy", policy) for policy in evaluated}
    trained = {("train_adapter", experiment) for experiment in (*EXPERIMENTS, GIVEN)} | rounds
    predictions = {("score_responses", f"{policy} {BENCHMARKS}") for policy in evaluated}
    leakage = {job for job in needs if job[0] == "find_leakage"}
    shown = {select, shapes, own, taken, *leakage, *pairs}
    needs["write_report", ""] = {("collect_metrics", ""), *shown, *trained, *predictions}
    return needs


def _made(policy: str) -> set[Job]:
    """The job that trains a policy; none for the base model."""
    return set() if policy == BASE else {("train_round" if "@" in policy else "train_adapter", policy)}


def _answers(needs: dict[Job, set[Job]], policy: str, plan: str, requests: Job, examples: set[Job]) -> tuple[Job, Job]:
    """Adds the jobs of a policy's answers; returns those with the answers and their rewards."""
    sampled, gathered, scored = (
        (rule, f"{policy} {plan}") for rule in ("sample_responses", "gather_responses", "score_responses")
    )
    needs[sampled] = {requests, *examples, *_made(policy)}
    needs[gathered] = {requests, sampled}
    needs[scored] = {requests, gathered, *examples}
    return gathered, scored


def _evaluated(needs: dict[Job, set[Job]], policy: str, examples: set[Job]) -> None:
    """Adds the jobs of a policy's evaluation, which compares it with the base model."""
    plan = ("plan_benchmarks", policy)
    needs[plan] = examples
    _answers(needs, policy, BENCHMARKS, plan, examples)
    needs["evaluate_policy", policy] = {("score_responses", f"{p} {BENCHMARKS}") for p in (BASE, policy)}


def _lists(needs: dict[Job, set[Job]], shapes: Job) -> Job:
    """Adds the jobs of the experiments that learn from ranked lists; returns the selection."""
    plan, select, terms = ("plan_samples", BASE), ("select_preferences", BASE), ("compute_logprobs", BASE)
    needs[select] = {plan, *_answers(needs, BASE, SAMPLES, plan, {shapes})}
    needs[terms] = {select, shapes}
    for experiment in ("dpo", "perpo"):
        needs["train_adapter", experiment] = {select, terms, shapes}
    return select


def _given(needs: dict[Job, set[Job]], own: Job) -> Job:
    """Adds the jobs of an experiment that learns from the preferences of a dataset; returns the one that
    reads these.
    """
    taken, terms = ("use_dataset_preferences", BASE), ("compute_logprobs", "taken original")
    needs |= {taken: {own}, terms: {taken, own}, ("train_adapter", GIVEN): {taken, terms, own}}
    return taken


def _pairs(needs: dict[Job, set[Job]], shapes: Job) -> set[Job]:
    """Adds P2-DPO's jobs; returns those whose tables the report shows."""
    looked, crops = ("compute_attention_maps", "tiny shapes first"), ("find_crops", "salient")
    asked, whose, made = ("plan_pairs", "self-made"), "tiny shapes/self-made", ("make_pairs", "self-made")
    kept, clips = ("filter_pairs", "central"), ("compute_clip_scores", "tiny-clip")
    terms: set[Job] = {
        ("compute_logprobs", f"self-made {view}") for view in ("original", "enhanced", "degraded", "noise")
    }
    needs |= {looked: {shapes}, crops: {looked}, asked: {shapes, crops}, clips: {shapes, crops}}
    needs["sample_responses", whose] = {asked, shapes}
    needs["gather_responses", whose] = {asked, ("sample_responses", whose)}
    needs[made] = {asked, ("gather_responses", whose), shapes}
    needs |= {term: {made, shapes} for term in terms}
    needs[kept] = {made, clips, ("compute_logprobs", "self-made original")}
    needs["train_adapter", "p2dpo"] = {kept, shapes, *terms}
    return {kept, looked, crops}


def _rounds(needs: dict[Job, set[Job]], shapes: Job) -> set[Job]:
    """Adds the jobs of rounds; returns the trainings. Round k + 1 samples from the policy of round
    k.
    """
    needs["compute_saliency_maps", "dino"] = {shapes}
    trainings: set[Job] = set()
    for asked, learns in ((BASE, {"grpo@1": GRPO, "papo@1": PAPO}), ("grpo@1", {"grpo@2": GRPO})):
        plan, batch = ("plan_round", asked), ("select_batch", asked)
        needs[plan] = {shapes, *_made(asked)}
        gathered, scored = _answers(needs, asked, "shapes/g4", plan, {shapes})
        needs[batch] = {plan, gathered, scored}
        for policy, stored in learns.items():
            terms, training = ("compute_logprobs", f"{asked} {stored}"), ("train_round", policy)
            needs[terms] = {batch, shapes, *_made(asked)}
            if stored == PAPO:
                needs[terms].add(("compute_saliency_maps", "dino"))
            needs[training] = {gathered, terms, *needs[terms]}
            trainings.add(training)
    return trainings


NEEDS = _needs()


def rerun(roots: Iterable[Job]) -> set[Job]:
    """The roots and everything that reads their outputs, directly or indirectly."""
    jobs = set(roots)
    while more := {job for job, needed in NEEDS.items() if needed & jobs} - jobs:
        jobs |= more
    return jobs


def every(*rules: str) -> set[Job]:
    """Every job of these rules."""
    return {job for job in NEEDS if job[0] in rules}
