"""Scores a million answers and selects ranked lists from them, and scores fewer with other rewards.

Question and answer texts have about the length of real ones: boxes with two decimals, and lines of
24 characters with a typing error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from before_now import Row, main
from perceptune.contracts.config import ModelBlock, RewardBlock, SelectionBlock
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES

SIZE = (640, 480)
WORDS = ("harbour", "lantern", "market", "orchard", "station", "window", "yellow", "bridge")


def prepare(folder: Path, reward: str, questions: int, answers: int) -> None:
    """Examples, requests and responses of one task."""
    draws = np.random.default_rng(0)
    ids = [f"data/{number:07d}" for number in range(questions)]
    boxes = draws.integers(5, 45, (questions, 4)) / 100 + [0, 0, 0.5, 0.5]
    targets = [_target(reward, draws) for _ in ids]
    write_table(folder / "examples.parquet", EXAMPLES, _examples(ids, boxes, targets), {})
    write_table(folder / "requests.parquet", REQUESTS, _requests(ids, answers), {})
    texts = [
        _answer(reward, box, target, draws) for box, target in zip(boxes, targets, strict=True) for _ in range(answers)
    ]
    write_table(folder / "responses.parquet", RESPONSES, _responses(ids, answers, texts), {})


def score(folder: Path, reward: str, questions: int, answers: int) -> dict[str, Any]:
    """Scores the answers."""
    from perceptune.stages.preferences import score as stage

    tables = {name: folder / f"{name}.parquet" for name in ("requests", "responses", "rewards")}
    config = RewardBlock(tasks={"open": reward})
    stage.run(**tables, examples={"data": folder / "examples.parquet"}, config=config, model=MODEL)
    return {}


def prepare_selection(folder: Path, **size: Any) -> None:
    """The same, already scored."""
    prepare(folder, "iou", **size)
    score(folder, "iou", **size)


def select(folder: Path, **_: Any) -> dict[str, Any]:
    """Selects ranked lists."""
    from perceptune.stages.preferences import select as stage

    tables = {name: folder / f"{name}.parquet" for name in ("requests", "responses", "rewards", "preferences")}
    stage.run(**tables, statistics=folder / "statistics.json", config=SelectionBlock(min_margin=0.2))
    return {"kept": json.loads((folder / "statistics.json").read_text())["kept"]}


MODEL = ModelBlock(path="nowhere", family="llava")


def _target(reward: str, draws: np.random.Generator) -> str | None:
    if reward == "edit_distance":
        return " ".join(draws.choice(WORDS, 3))
    if reward == "iou":
        return None
    return "yes" if reward == "yes_no" else str(draws.integers(0, 100))


def _answer(reward: str, box: np.ndarray, target: str | None, draws: np.random.Generator) -> str:
    if reward == "iou":
        return f"[{', '.join(f'{edge:.2f}' for edge in box + draws.integers(-4, 5, 4) / 100)}]"
    if reward == "edit_distance":
        place = draws.integers(0, len(str(target)))
        return f"{str(target)[:place]}{draws.choice(list('abcdef'))}{str(target)[place:]}"
    if reward == "yes_no":
        return str(draws.choice(["Yes, there is one.", "No.", "There is no dog in the image."]))
    number = draws.integers(0, 100)
    return rf"There are \boxed{{{number}}}" if reward.startswith("boxed") else f"{number}."


def _examples(ids: list[str], boxes: np.ndarray, targets: list[str | None]) -> list[dict[str, Any]]:
    shared = {
        "task": "open", "question": "Where is it?", "images": [], "image_sha256": [], "image_hashes": [],
        "image_sizes": [list(SIZE)], "split": "train", "source": json.dumps({"url": "https://example.org/" + "x" * 60}),
        "reason": None,
    }  # fmt: skip
    pixels = boxes * [*SIZE, *SIZE]
    return [
        {"example_id": name, "target": target, "box": box, **shared}
        for name, target, box in zip(ids, targets, pixels.tolist(), strict=True)
    ]


def _requests(ids: list[str], answers: int) -> list[dict[str, Any]]:
    content = [{"type": "image", "text": None}, {"type": "text", "text": "Where is it? " * 8}]
    shared = {
        "dataset": "data", "benchmark": None, "condition": "sampled", "view": "original", "recipe": "{}", "contrast": None,
        "messages": [{"role": "user", "content": content}], "n": answers, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
        "max_tokens": 64, "seed": 0,
    }  # fmt: skip
    return [{"request_id": f"{name}/original/sampled", "example_id": name, **shared} for name in ids]


def _responses(ids: list[str], answers: int, texts: list[str]) -> pa.Table:
    """As columns, since a million rows as dicts take gigabytes."""
    count = len(texts)
    repeated = np.repeat(np.arange(len(ids)), answers)
    asked = pa.array([f"{name}/original/sampled" for name in ids])
    tokens = [len(text) // 2 for text in texts]
    starts = pa.array(np.concatenate([[0], np.cumsum(tokens)]), pa.int32())
    total = sum(tokens)
    columns = {
        "request_id": asked.take(pa.array(repeated)),
        "example_id": pa.array(ids).take(pa.array(repeated)),
        "view": pa.array(["original"] * count),
        "sample_index": pa.array(np.tile(np.arange(answers), len(ids)), pa.int32()),
        "text": pa.array(texts),
        "token_ids": pa.ListArray.from_arrays(starts, pa.array(np.arange(total) % 32000, pa.int32())),
        "logprobs": pa.ListArray.from_arrays(starts, pa.array(-np.arange(total) % 7, pa.float32())),
        "finish_reason": pa.array(["stop"] * count),
        "prompt_tokens": pa.array([600] * count, pa.int32()),
        "reason": pa.nulls(count, pa.string()),
        "key": pa.nulls(count, pa.string()),
    }
    return pa.table(columns).select(RESPONSES.schema.names)


def _scoring(reward: str, target: str, questions: int, answers: int = 20) -> Row:
    size = {"reward": reward, "questions": questions, "answers": answers}
    return Row(f"score, {reward}", prepare, score, size, {**size, "questions": max(questions // 20, 10)}, target=target)


SELECTION = {"questions": 50_000, "answers": 20}
ROWS = [
    _scoring("iou", "3.3 s, 1,500 MB", 50_000),
    _scoring("edit_distance", "6.7 s, 1,500 MB", 50_000),
    Row(
        "select ranked lists",
        prepare_selection,
        select,
        SELECTION,
        {**SELECTION, "questions": 2_500},
        target="3 s, 1,500 MB",
    ),
    _scoring("yes_no", "", 10_000),
    _scoring("exact_match", "", 10_000),
    _scoring("boxed_math", "", 250),
]

if __name__ == "__main__":
    main(ROWS)
