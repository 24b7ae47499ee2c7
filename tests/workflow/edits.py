"""Edits of every config key, and what each should rerun, written by hand."""

from __future__ import annotations

from typing import Any

from .needs import BASE, BENCHMARKS, GIVEN, PAPO, ROUNDS, Job, every

MODEL = every(
    "compute_attention_maps", "use_dataset_preferences", "sample_responses", "score_responses", "compute_logprobs", "train_adapter", "train_round", "evaluate_policy"
)  # fmt: skip
"""The jobs that depend on a model block."""
ASKED = every("plan_benchmarks", "evaluate_policy")
OWN = ("tiny", "perpo", *ROUNDS, GIVEN)
ASKED_OWN = {job for job in ASKED if job[1] in OWN}
EVALUATED_OWN = {job for job in every("evaluate_policy") if job[1] in OWN}
GENERATE = {("make_shapes", "shapes")}
IMPORT = {("import_examples", "own")}
PLAN = {("plan_samples", BASE)}
COMPARE = {
    source: {("find_leakage", f"{dataset} {source}")}
    for dataset, source in (("shapes", "n20"), ("shapes", "self-made"), ("shapes", "g4"), ("own", "taken"))
}
COMPARED_OWN = COMPARE["n20"] | COMPARE["g4"] | COMPARE["taken"]
"""The jobs that compare training data with the benchmark on the user's own images."""
SELECT = {("select_preferences", BASE)}
TAKE = {("use_dataset_preferences", BASE)}
SCORE = every("score_responses")
TRAIN = {("train_adapter", "dpo")}
REPORT = {("write_report", "")}
LOOK = {("compute_attention_maps", "tiny shapes first")}
CROP = {("find_crops", "salient")}
PAIR = {("plan_pairs", "self-made")}
MADE = {("make_pairs", "self-made")}
FILTER = {("filter_pairs", "central")}
CLIP = {("compute_clip_scores", "tiny-clip")}
ASK_ROUND, BATCH, ROUND = {("plan_round", BASE)}, {("select_batch", BASE)}, {("train_round", "grpo@1")}
SALIENT = {("compute_saliency_maps", "dino")}
MASKED = {("compute_logprobs", f"{BASE} {PAPO}"), ("train_round", "papo@1")}
CLEAN = {("compute_logprobs", f"{policy} old@clean+reference@clean") for policy in (BASE, "grpo@1")} | {
    ("compute_logprobs", f"{BASE} old@clean+old@either+reference@clean")
}
NOTHING: set[Job] = set()
# a comparison or agreement that the config does not have yet
NEW_KEYS = "comparisons.new.policies comparisons.new.benchmark"
NEW = (["perpo", "tiny"], "own-test")
COMPARED_NEW = {("measure_comparison", "new")} | REPORT
JUDGED_NEW = COMPARED_NEW | {("judge_comparison", "new")}
AGREED_NEW = JUDGED_NEW | {("measure_agreement", "agreed")}
# tokens that `grpo` selects once its method is CPPO
CONTRASTED_KEYS = "trainings.grpo.method trainings.grpo.parameters agreements.agreed.tokens agreements.agreed.judge"
CONTRASTED = ("cppo", {"preserving": "zoomed", "removing": "covered"}, "grpo", "stub")
LABELLED = {
    ("compute_logprobs", "grpo@1 old@covered"), ("select_tokens", "grpo@2"), ("label_tokens", "agreed"), ("measure_agreement", "agreed"),
} | ROUND | REPORT  # fmt: skip
JUDGED_DPO: set[Job] = {
    *COMPARE["n20"], *(("plan_benchmarks", policy) for policy in (BASE, "dpo")), ("measure_agreement", "agreed"), ("judge_again", "dpo"),
    *((rule, policy) for rule in ("judge_answers", "evaluate_policy") for policy in (BASE, "dpo")),
    *(("score_responses", f"{policy} {BENCHMARKS} mmhal") for policy in (BASE, "dpo")),
} | REPORT  # fmt: skip
"""The jobs for answers of the base model and `dpo` that two judges rate."""

# (keys, new value, jobs that rerun first), as `Workflow.edited` takes them
EDITS: list[tuple[str, Any, set[Job]]] = [
    ("models.tiny.path", "same-model", NOTHING),  # a folder with the same contents
    ("models.tiny.family", "qwen2_5_vl", MODEL),
    ("models.tiny.family models.tiny.pixels", ("qwen2_5_vl", [784, 7840]), MODEL),
    ("models.tiny.coordinates", "thousand", MODEL),
    ("models.tiny.reasoning", ["[", "]"], SCORE),
    ("models.tiny.image_fit", "crop", MODEL),
    ("models.tiny.max_model_len", 500, MODEL),
    ("models.tiny.dtype", "bfloat16", MODEL),
    ("models.tiny.trust_remote_code", True, MODEL),
    ("models.tiny.threads", 2, NOTHING),
    ("models.tiny.workers", 1, NOTHING),
    ("models.tiny.feature_cache", True, NOTHING),
    ("models.tiny.engine.tensor_parallel_size", 2, NOTHING),
    ("models.tiny.engine.gpu_memory_utilization", 0.5, NOTHING),
    ("models.tiny.engine.enforce_eager", False, NOTHING),
    ("models.tiny.engine.max_num_seqs", 8, NOTHING),
    ("models.tiny.engine.answers_per_part", 7, NOTHING),
    ("models.tiny.engine.batch_invariant", True, NOTHING),
    ("datasets.shapes.seed", 1, GENERATE),
    ("datasets.shapes.train", {"grounding": 47}, GENERATE),
    ("datasets.shapes.validation", {"grounding": 5}, GENERATE),
    ("datasets.shapes.test", {"grounding": 23}, GENERATE),
    ("datasets.own.path", "own/other.jsonl", IMPORT),
    ("datasets.own.images", "own/", IMPORT),
    ("datasets.own.coordinates", "thousand", IMPORT),
    ("datasets.own.boxes", "xywh", IMPORT),
    ("datasets.own.kind datasets.own.path datasets.own.parameters", ("coco", "own/instances.json", {"min_area": 0.1}), IMPORT),
    ("datasets.own.watch_images", False, IMPORT),  # a different digest, of fewer files
    ("datasets.own.task", "ocr", IMPORT),
    ("datasets.own.split", "validation", IMPORT),
    ("datasets.own.test_share", 0.5, IMPORT),
    ("datasets.own.max_images", 1, IMPORT),
    ("datasets.own.max_failed_share", 0.5, IMPORT),
    ("datasets.own.max_failed_rows", 3, IMPORT),
    ("samplings.n20.n", 7, PLAN),
    ("samplings.n20.temperature", 0.9, PLAN),
    ("samplings.n20.top_p", 0.9, PLAN),
    ("samplings.n20.top_k", 5, PLAN),
    ("samplings.n20.max_tokens", 23, PLAN),
    ("samplings.n20.seed", 1, PLAN),
    ("samplings.n20.split", "test", COMPARE["n20"] | PLAN),
    ("samplings.n20.tasks", ["grounding"], COMPARE["n20"] | PLAN),
    ("samplings.n20.limit", 40, COMPARE["n20"] | PLAN),
    ("samplings.n20.view", "blank", PLAN),
    ("samplings.n20.prompt", "{question} Answer.", PLAN),
    ("views.clean.type", "blank", PAIR),
    ("views.noisy.parameters", {"sigma": 0.3}, PAIR),
    ("views.noisy.seed", 1, PAIR),
    ("views.removing.choice", ["covered"], NOTHING),  # no job uses it
    ("views.masked.parameters", {"share": 0.5}, MASKED),
    ("views.masked.seed", 1, MASKED),
    ("views.hidden.parameters", {"share": 0.4}, MASKED),
    ("views.hidden.saliency_map", "other", MASKED | {("compute_saliency_maps", "other")}),
    ("saliency_maps.dino.path", "same-dino", NOTHING),  # a folder with the same contents
    ("saliency_maps.dino.layers", [0, 2], SALIENT),
    ("saliency_maps.dino.size", 70, SALIENT),
    ("saliency_maps.dino.dtype", "bfloat16", SALIENT),
    ("saliency_maps.other.split", "test", NOTHING),  # in a used block, it would leave out required examples and be rejected
    ("saliency_maps.other.tasks", ["ocr"], NOTHING),
    ("saliency_maps.other.limit", 3, NOTHING),
    ("views.enhanced.crop", "other", PAIR | {("find_crops", "other"), *CLIP}),
    ("attention_maps.first.method", "gradient", LOOK),
    ("attention_maps.first.layers", [0, 1], LOOK),
    ("attention_maps.first.prompt", "{question} Answer.", LOOK),
    ("attention_maps.first.split", "test", LOOK),
    ("attention_maps.first.tasks", ["grounding"], LOOK),
    ("attention_maps.first.limit", 40, LOOK),
    ("crops.salient.attention_map", "other", CROP | {("compute_attention_maps", "tiny shapes other")}),
    ("crops.salient.base", [50, 50], CROP),
    ("crops.salient.ratios", [1.0, 1.5], CROP),
    ("crops.salient.neighbours", 8, CROP),
    ("crops.salient.variant", "code", CROP),
    *(
        (f"pair_generations.self-made.{kind}.{role}.{key}", value, PAIR)
        for kind in ("focus", "robust")
        for role in ("chosen", "rejected")
        for key, value in {
            "temperature": 0.5, "top_p": 0.8, "top_k": 4, "max_tokens": 20, "seed": 3, "prompt": "{question} Answer.",
            "contrast.view": "original", "contrast.strength": 0.7, "contrast.plausibility": 0.3,
        }.items()
    ),
    ("pair_generations.self-made.focus.chosen.view", "degraded", PAIR),
    ("pair_generations.self-made.focus.rejected.view", "enhanced", PAIR),
    ("pair_generations.self-made.robust.chosen.view", "original", PAIR),
    ("pair_generations.self-made.robust.rejected.view", "clean", PAIR),
    ("pair_generations.self-made.loss_prompt", "enhanced", MADE),
    ("pair_generations.self-made.split", "test", COMPARE["self-made"] | PAIR),
    ("pair_generations.self-made.tasks", ["grounding"], COMPARE["self-made"] | PAIR),
    ("pair_generations.self-made.limit", 40, COMPARE["self-made"] | PAIR),
    ("pair_generations.self-made.seed", 1, PAIR),
    ("filters.central.context", "original", FILTER),
    ("filters.central.max_ppl", 2.0, FILTER),
    ("filters.central.margin", [-1, 1], FILTER),
    ("filters.central.central_quantile", 0.9, FILTER),
    ("filters.central.applies_to", "focus", FILTER),
    ("filters.central.clip_score", None, FILTER),
    ("filters.central.max_groups", 20, FILTER),
    ("filters.central.seed", 1, FILTER),
    ("clip_scores.tiny-clip.path", "same-clip", NOTHING),  # a folder with the same contents
    ("clip_scores.tiny-clip.prompt", "{question} Answer.", CLIP),
    ("clip_scores.tiny-clip.dtype", "bfloat16", CLIP),
    ("rollouts.g4.questions", 10, ASK_ROUND),
    ("rollouts.g4.n", 3, ASK_ROUND),
    ("rollouts.g4.temperature", 1, NOTHING),  # the only temperature
    ("rollouts.g4.top_p", 0.9, ASK_ROUND),
    ("rollouts.g4.top_k", 5, ASK_ROUND),
    ("rollouts.g4.max_tokens", 23, ASK_ROUND),
    ("rollouts.g4.seed", 1, ASK_ROUND),
    ("rollouts.g4.split saliency_maps.dino.split", "test", COMPARE["g4"] | ASK_ROUND | SALIENT),
    ("rollouts.g4.tasks", ["grounding"], COMPARE["g4"] | ASK_ROUND),
    ("rollouts.g4.prompt", "{question} Answer.", ASK_ROUND),
    ("batch_selections.all.questions", 8, BATCH),
    ("batch_selections.all.keep", "reward", BATCH),
    ("batch_selections.all.above", 0.1, BATCH),
    ("batch_selections.all.below", 0.9, BATCH),
    ("rewards.perception.tasks", {"grounding": "iou"}, SCORE),
    ("rewards.perception.max_failed_share", 0.5, SCORE),
    ("rewards.perception.resources", "own", SCORE),
    ("rewards.perception.max_failed_rows", 3, SCORE),
    ("selections.ranked.list_size", 3, SELECT),
    ("selections.ranked.min_margin", 0.2, SELECT),
    ("selections.ranked.min_list_size", 3, SELECT),
    ("selections.ranked.deduplicate", False, SELECT),
    ("selections.ranked.pick", "first", SELECT),
    ("selections.ranked.max_groups", 30, SELECT),
    ("selections.ranked.seed", 1, SELECT),
    ("dataset_preferences.taken.list_size", 3, TAKE),
    ("dataset_preferences.taken.min_margin", 0.2, TAKE),
    ("dataset_preferences.taken.min_list_size", 3, TAKE),
    ("dataset_preferences.taken.deduplicate", False, TAKE),
    ("dataset_preferences.taken.pick", "first", TAKE),
    ("dataset_preferences.taken.max_groups", 3, TAKE),
    ("dataset_preferences.taken.seed", 1, TAKE),
    ("dataset_preferences.taken.split", "train", COMPARE["taken"] | TAKE),
    ("dataset_preferences.taken.tasks", ["grounding"], COMPARE["taken"] | TAKE),
    ("dataset_preferences.taken.limit", 3, COMPARE["taken"] | TAKE),
    ("dataset_preferences.taken.prompt", "{question} Answer.", TAKE),
    ("trainings.dpo.method", "lipo", TRAIN),
    ("trainings.dpo.method trainings.dpo.parameters", ("simpo", {}), TRAIN),  # without stored log-probs
    ("trainings.dpo.parameters", {"beta": 0.2}, TRAIN),
    ("trainings.dpo.view", "blank", TRAIN | {("compute_logprobs", "blank")}),
    ("trainings.dpo.lora.r", 16, TRAIN),
    ("trainings.dpo.lora.alpha", 32, TRAIN),
    ("trainings.dpo.lora.dropout", 0.1, TRAIN),
    ("trainings.dpo.lora.parts", ["language", "vision"], TRAIN),
    ("trainings.dpo.lora.parts trainings.dpo.lora.full", (["language", "projector"], ["projector"]), TRAIN),
    ("trainings.dpo.lora.target_modules", ["q_proj"], TRAIN),
    ("trainings.dpo.lora.use_rslora", True, TRAIN),
    ("trainings.dpo.lora.use_dora", True, TRAIN),
    ("trainings.dpo.learning_rate", 2.0e-4, TRAIN),
    ("trainings.dpo.scheduler", "linear", TRAIN),
    ("trainings.dpo.warmup_ratio", 0.1, TRAIN),
    ("trainings.dpo.weight_decay", 0.1, TRAIN),
    ("trainings.dpo.max_grad_norm", 0.5, TRAIN),
    ("trainings.dpo.epochs", 2, TRAIN),
    ("trainings.dpo.batch_size", 8, TRAIN),
    ("trainings.dpo.micro_batch_size", 2, NOTHING),
    ("trainings.dpo.devices", 2, NOTHING),
    ("trainings.dpo.nodes", 2, NOTHING),
    ("trainings.dpo.devices trainings.dpo.sharding", (2, "fsdp"), NOTHING),
    ("trainings.dpo.quantisation", "nf4", TRAIN | {("compute_logprobs", "original~nf4")}),
    ("trainings.dpo.gradient_checkpointing", True, NOTHING),
    ("trainings.dpo.save_steps", 7, NOTHING),
    ("trainings.dpo.report_to", ["tensorboard"], NOTHING),
    ("trainings.dpo.seed", 43, TRAIN),
    ("trainings.grpo.optimizer", "reset", ROUND),
    ("trainings.grpo.limits", {"old_kl": [None, 1]}, ROUND),
    ("trainings.grpo.parameters", {"beta": 0.02}, ROUND),
    ("trainings.papo.parameters", {"gamma": 0.01, "mask": "either"}, {("train_round", "papo@1")}),
    ("benchmarks.own-test.dataset", "shapes", COMPARED_OWN | ASKED_OWN | REPORT),
    ("benchmarks.own-test.attention_map", "test", {("compute_attention_maps", f"{policy} own test") for policy in OWN} | EVALUATED_OWN | REPORT),
    ("benchmarks.own-test.reward", "other", {
        *(("score_responses", f"{policy} benchmarks other") for policy in OWN),
        *(("score_responses", f"{policy} benchmarks") for policy in ("tiny", "perpo")),  # their tables no longer have it
        *EVALUATED_OWN,
    }),
    ("benchmarks.own-test.split", "validation", COMPARED_OWN | ASKED_OWN | REPORT),
    ("benchmarks.own-test.tasks", ["grounding"], COMPARED_OWN | ASKED_OWN | REPORT),
    ("benchmarks.own-test.limit", 3, COMPARED_OWN | ASKED_OWN | REPORT),
    ("benchmarks.own-test.n", 2, ASKED_OWN | REPORT),
    ("benchmarks.own-test.temperature", 0.9, ASKED_OWN | REPORT),
    ("benchmarks.own-test.top_p", 0.9, ASKED_OWN | REPORT),
    ("benchmarks.own-test.top_k", 5, ASKED_OWN | REPORT),
    ("benchmarks.own-test.protocol", "refcoco", ASKED_OWN | REPORT),  # it has its own prompt
    ("benchmarks.own-test.protocol benchmarks.own-test.variant", ("amber", "discriminative"), COMPARED_OWN | ASKED_OWN | REPORT),
    ("benchmarks.own-test.max_tokens", 23, ASKED_OWN | REPORT),
    ("benchmarks.own-test.views", ["original"], ASKED_OWN | REPORT),
    *(
        (f"benchmarks.own-test.contrast.{key}", value, ASKED_OWN | REPORT)
        for key, value in {"view": "original", "strength": 0.7, "plausibility": 0.3}.items()
    ),
    ("benchmarks.own-test.prompt", "{question} Answer.", ASKED_OWN | REPORT),
    ("benchmarks.own-test.prompts", ["{question} Answer."], {("plan_benchmarks", BASE), ("evaluate_policy", BASE)} | REPORT),
    ("benchmarks.own-test.seed", 1, ASKED_OWN | REPORT),
    ("benchmarks.judged.judge", "second", REPORT),  # no policy is evaluated on it; tests/contracts/test_judges.py covers judges
    ("benchmarks.judged.judge_prompt", "own/data.jsonl", REPORT),
    *(
        (f"judges.stub.{key}", value, NOTHING)
        for key, value in {
            "model": "another", "url": "http://localhost:2/v1", "max_tokens": 77, "key": "SOME_KEY", "concurrency": 3, "retries": 1,
            "timeout": 5.0,
        }.items()
    ),
    ("benchmarks.own-test.resamples", 98, EVALUATED_OWN | REPORT),
    ("exports.out.experiment", "perpo", NOTHING),  # exports are made on request
    ("exports.out.format", "verl", NOTHING),
    ("exports.out.pairs", "all", NOTHING),
    (NEW_KEYS, NEW, COMPARED_NEW),
    (f"{NEW_KEYS} comparisons.new.seed", (*NEW, 1), COMPARED_NEW),
    (f"{NEW_KEYS} comparisons.new.resamples", (*NEW, 98), COMPARED_NEW),
    ("comparisons.new.experiment comparisons.new.judge", ("p2dpo", "stub"), JUDGED_NEW),
    *(
        (f"{NEW_KEYS} comparisons.new.judge comparisons.new.{key}", (*NEW, "stub", value), JUDGED_NEW)
        for key, value in {"rubric": "grades", "orders": "both", "prompt": "own/data.jsonl", "limit": 3}.items()
    ),
    *(
        (f"{NEW_KEYS} comparisons.new.judge agreements.agreed.comparison agreements.agreed.{keys}", (*NEW, "stub", "new", *values), AGREED_NEW)
        for keys, values in {
            "judge": ("second",), "labels": ("own/data.jsonl",), "judge agreements.agreed.seed": ("second", 1),
            "judge agreements.agreed.resamples": ("second", 98),
        }.items()
    ),
    (
        "experiments.dpo.benchmarks agreements.agreed.benchmark agreements.agreed.judge agreements.agreed.policies",
        (["shapes-test", "judged"], "judged", "second", ["dpo"]),
        JUDGED_DPO,
    ),
    (CONTRASTED_KEYS, CONTRASTED, LABELLED),
    (f"{CONTRASTED_KEYS} agreements.agreed.limit", (*CONTRASTED, 3), LABELLED),
    ("report.title", "Another", REPORT),
    ("report.caption", "Other words.", REPORT),
    ("report.gallery", 3, REPORT),
    ("report.tokens", 3, REPORT),  # none of the methods selects tokens
]  # fmt: skip
