"""A small folder of results, as a run with ranked lists, pairs and rounds leaves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptune.contracts.config import FileDataset
from perceptune.contracts.tables.attention import ATTENTION
from perceptune.contracts.tables.crops import CROPS
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.table import Table
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.data.shapes import render, scene_and_row
from perceptune.core.views.view import Recipe
from perceptune.stages.data import import_examples

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \u202e{{ 7 * 7 }} \"'>"
QUESTIONS = 6
SAMPLES = 3
MODEL = {"path": "nowhere", "family": "llava"}
MESSAGES = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "locate it."}]}]
REWARDED = {
    "tiny": {"greedy": [0.0, 0.9, 0.2, 0.6, 0.4, None], "sampled": [0.0, 0.5, 1.0]},
    "perpo": {"greedy": [0.7, 0.1, 0.2, 0.8, 0.5, 0.9], "sampled": [0.25, 0.5, 0.75]},
}
"""Policy and condition to rewards: of each question, or of each sample, the same for all questions."""
ROLES = ("focus_chosen", "focus_rejected", "robust_chosen", "robust_rejected")
RECIPES = {
    "enhanced": Recipe("enhanced", box=(10.0, 10.0, 50.0, 50.0)),
    "degraded": Recipe("degraded", box=(10.0, 10.0, 50.0, 50.0)),
    "noise": Recipe("noise", {"sigma": 0.2}, seed=7),
}


def write_results(folder: Path) -> None:
    """Writes `results` into the current directory, which must be `folder`: paths in tables are relative to it."""
    _write_examples(folder / "data")
    for policy, rewards in REWARDED.items():
        _write_answers(policy, rewards)
    adapter = Path("results/adapters/perpo/adapter_config.json")
    adapter.parent.mkdir(parents=True)
    adapter.write_text("{}")
    _write_pairs()
    for number in (1, 2):
        _write_round(number)


def made(stage: str, parameters: Mapping[str, Any] | None = None, **inputs: str) -> dict[str, Any]:
    """A lineage."""
    files = {role.replace("_", " "): {"path": path, "sha256": "0" * 64} for role, path in inputs.items()}
    return {"stage": stage, "parameters": parameters or {}, "inputs": files, "code": "", "versions": {}}


def _write(path: str, kind: Table, rows: list[dict[str, Any]], lineage: dict[str, Any]) -> str:
    write_table(Path(path), kind, rows, lineage)
    return path


def _write_examples(folder: Path) -> None:
    folder.mkdir()
    lines = []
    for i in range(QUESTIONS):
        scene, row = scene_and_row(0, "test", i, "grounding")
        render(scene).save(folder / f"{i}.png")
        assert row.box is not None
        lines.append(
            {"id": f"e{i}", "image": f"{i}.png", "question": row.question if i else f"find {HOSTILE}", "task": "grounding",
             "split": "test", "answer": row.answer, "box": list(row.box), "note": "kept"}
        )  # fmt: skip
    lines.append({"id": "bad", "image": "absent.png", "question": "where?", "task": "grounding", "box": [0, 0, 1, 1]})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), max_failed_share=1.0)
    import_examples.run(examples=Path("results/examples/shapes.parquet"), config=config)


def _write_answers(policy: str, rewards: Mapping[str, list[float | None]]) -> None:
    asked, answered, scored = [], [], []
    for i in range(QUESTIONS):
        for condition, values in rewards.items():
            name = f"shapes-test/e{i}/original/{condition}"
            samples = [values[i]] if condition == "greedy" else values
            asked.append(
                {"request_id": name, "example_id": f"e{i}", "dataset": "shapes", "benchmark": "shapes-test",
                 "condition": condition, "view": "original", "recipe": '{"op": "original"}', "contrast": None,
                 "messages": MESSAGES, "n": len(samples), "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 24,
                 "seed": 1}
            )  # fmt: skip
            for sample, reward in enumerate(samples):
                box = [10.0 + i, 20.0, 60.0 + sample, 80.0]
                text = HOSTILE if i == 0 and sample == 0 else f"{policy} says {box}"
                common = {"request_id": name, "example_id": f"e{i}", "view": "original", "sample_index": sample}
                answered.append(
                    {**common, "text": text, "token_ids": [5, 6, 2], "logprobs": [-0.05, -1.5, -6.0],
                     "finish_reason": "stop", "prompt_tokens": 9, "reason": None, "key": None}
                )  # fmt: skip
                scored.append(
                    {**common, "task": "grounding", "benchmark": "shapes-test", "condition": condition, "text": text,
                     "answer": text if sample != 2 else f"only {box}", "target": "the truth", "reward": reward,
                     "parsed": json.dumps({"box_pixels": box}) if reward else None,
                     "components": [{"name": "iou", "value": reward}],
                     "reason": None if reward else "no box: expected four numbers"}
                )  # fmt: skip
    examples = "results/examples/shapes.parquet"
    requests = _write(
        f"results/requests/{policy}/benchmarks.parquet", REQUESTS, asked, made("sampling.requests", shapes=examples)
    )
    responses = _write(
        f"results/responses/{policy}/benchmarks.parquet", RESPONSES, answered,
        made("sampling.responses", requests=requests),
    )  # fmt: skip
    lineage = made(
        "preferences.score", {"model": MODEL}, requests=requests, responses=responses, examples_shapes=examples
    )
    _write(f"results/rewards/{policy}/benchmarks/overlap.parquet", REWARDS, scored, lineage)


def _write_pairs() -> None:
    """Pairs of P2-DPO with crops and attention maps; those of odd examples are dropped."""
    examples = "results/examples/shapes.parquet"
    maps = {"size": [112, 112], "grid": [2, 2], "attention": [0.0, 0.5, 0.25, 0.25], "afr": 3.25, "layer_afr": [3.25]}
    maps |= {"image_share": [0.5], "reason": None}
    crops = {"box": [10.0, 10.0, 50.0, 50.0], "inverse": [60.0, 60.0, 100.0, 100.0], "ratio": 1.0, "contrast": 2.0}
    crops |= {"flag": None, "reason": None}
    ids = [f"e{i}" for i in range(QUESTIONS)]
    attention = _write(
        "results/attention/tiny/shapes/first.parquet", ATTENTION, [{"example_id": i, **maps} for i in ids],
        made("attention.maps", examples=examples),
    )  # fmt: skip
    crop = _write(
        "results/crops/tiny/shapes/salient.parquet", CROPS, [{"example_id": i, **crops} for i in ids],
        made("attention.crops", attention=attention),
    )  # fmt: skip
    requests = _write(
        "results/requests/tiny/shapes/made.parquet", REQUESTS, [],
        made("sampling.requests", examples=examples, crops_salient=crop),
    )  # fmt: skip
    answered = [
        {"request_id": f"shapes/e{i}/original/{role}", "example_id": f"e{i}", "view": "original", "sample_index": 0,
         "text": role, "token_ids": [1, 2], "logprobs": [-0.5, -0.75], "finish_reason": "stop", "prompt_tokens": 9,
         "reason": None, "key": None}
        for i in range(QUESTIONS) for role in ROLES
    ]  # fmt: skip
    responses = _write(
        "results/responses/tiny/shapes/made.parquet", RESPONSES, answered,
        made("sampling.responses", {"model": MODEL}, requests=requests),
    )  # fmt: skip
    lineage = made("preferences.pairs", requests=requests, responses=responses)
    pairs = _write(
        "results/pairs/tiny/shapes/made.parquet", PREFERENCES, [_group(i) for i in range(QUESTIONS)], lineage
    )
    _write(
        "results/preferences/tiny/shapes/made/central.parquet", PREFERENCES, [_group(i) for i in range(QUESTIONS)],
        made("preferences.filter_pairs", pairs=pairs),
    )  # fmt: skip


def _group(i: int) -> dict[str, Any]:
    kept = i % 2 == 0
    return {
        "group_id": f"g{i}", "example_id": f"e{i}", "request_id": "r", "task": "grounding", "view": "original",
        "messages": MESSAGES, "numbers": [{"name": "clip_image", "value": 0.25}], "kept": kept,
        "reason": None if kept else "margin",
        "responses": [
            {"sample_index": 0, "text": HOSTILE if i == 0 else f"{role} {i}", "token_ids": [1, 2], "reward": 0.0, "role": role}
            for role in ROLES
        ],
        "views": [
            {"view": view, "recipe": recipe.text(), "messages": [], "sha256": "0" * 64, "strength": 0.125}
            for view, recipe in RECIPES.items()
        ],
        "pairs": [
            {"kind": kind, "chosen": 2 * k, "rejected": 2 * k + 1, "ppl_chosen": 1.5, "ppl_rejected": 2.25,
             "margin": (-1) ** i * (i + k / 2) / 10, "ips": 0.5, "kept": kept, "reason": None if kept else "margin"}
            for k, kind in enumerate(("focus", "robust"))
        ],
    }  # fmt: skip


def _write_round(number: int) -> None:
    """Round `number` of `grpo`: rollouts with rewards 0 and 1 (or only 1 in round 2), and benchmark answers."""
    before, policy = ("tiny" if number == 1 else f"grpo@{number - 1}"), f"grpo@{number}"
    _write_answers(policy, {"greedy": [0.1 * number * i for i in range(QUESTIONS)]})
    rewards = [float(number == 2), 1.0]
    scored = [
        {"request_id": f"shapes/e{i}/original/round-{number}", "example_id": f"e{i}", "task": "grounding",
         "benchmark": None, "condition": f"round-{number}", "view": "original", "sample_index": k, "text": "a box",
         "answer": "a box", "target": "the truth", "reward": reward, "parsed": None, "components": [], "reason": None}
        for i in range(2) for k, reward in enumerate(rewards)
    ]  # fmt: skip
    examples = "results/examples/shapes.parquet"
    lineage = made("preferences.score", {"model": MODEL}, examples_shapes=examples)
    path = _write(f"results/rewards/{before}/shapes/g2/overlap.parquet", REWARDS, scored, lineage)
    groups = [
        {"group_id": f"shapes/e{i}/original/round-{number}", "example_id": f"e{i}",
         "request_id": f"shapes/e{i}/original/round-{number}", "task": "grounding", "view": "original", "messages": MESSAGES, "views": [], "pairs": [], "numbers": [], "kept": i == 0,
         "reason": None if i == 0 else "all rewards equal",
         "responses": [{"sample_index": k, "text": "a box", "token_ids": [1], "reward": r, "role": None} for k, r in enumerate(rewards)]}
        for i in range(2)
    ]  # fmt: skip
    batch = _write(
        f"results/preferences/{before}/shapes/g2/overlap/all.parquet", PREFERENCES, groups,
        made("preferences.select_batch", rewards=path, examples=examples),
    )  # fmt: skip
    log = [{"experiment": policy, "step": 1, "metric": "loss", "value": 0.5}]
    _write(f"results/training/{policy}.parquet", TRAINING, log, made("training.train_round", preferences=batch))
