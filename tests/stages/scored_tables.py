"""Small tables of examples, requests and responses, and what scoring and selection make of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from perceptune.contracts.config import ModelBlock, RewardBlock, SelectionBlock
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.core.benchmarks.benchmark import Benchmark, Measured, share
from perceptune.stages.preferences import score, select

MODEL = ModelBlock(path="nowhere", family="llava")
REWARD = RewardBlock(tasks={"grounding": "iou", "existence": "yes_no"})


def example(name: str, task: str, **changes: Any) -> dict[str, Any]:
    row = {
        "example_id": name, "task": task, "question": "?", "images": [], "image_sha256": [], "image_hashes": [], "image_sizes": [[100, 100]],
        "target": None, "box": None, "split": "test", "source": None, "reason": None,
    }  # fmt: skip
    return {**row, **changes}


def request(name: str, n: int, benchmark: str | None = None, condition: str = "sampled") -> dict[str, Any]:
    parts = [benchmark or "mine", name, "original", condition]
    return {
        "request_id": "/".join(parts), "example_id": name, "dataset": "mine", "benchmark": benchmark, "condition": condition,
        "view": "original", "recipe": "{}", "contrast": None,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}], "n": n,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 8, "seed": 0,
    }  # fmt: skip


def response(asked: dict[str, Any], index: int, text: str | None) -> dict[str, Any]:
    shared = {
        "request_id": asked["request_id"],
        "example_id": asked["example_id"],
        "view": asked["view"],
        "sample_index": index,
    }
    if text is None:
        return {**shared, "reason": "the file is empty"}
    return {
        **shared,
        "text": text,
        "token_ids": [index],
        "logprobs": [-1.0],
        "finish_reason": "stop",
        "prompt_tokens": 3,
    }


class Tables:
    """Small tables in a folder; `answers` maps a request to its texts."""

    def __init__(
        self, folder: Path, examples: list[dict[str, Any]], answers: list[tuple[dict[str, Any], list[str | None]]]
    ) -> None:
        self.folder = folder
        write_table(self["examples"], EXAMPLES, examples, {})
        write_table(self["requests"], REQUESTS, [r for r, _ in answers], {})
        rows = [response(r, i, text) for r, texts in answers for i, text in enumerate(texts)]
        write_table(self["responses"], RESPONSES, rows, {})

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def rewards(self, block: RewardBlock = REWARD, model: ModelBlock = MODEL) -> pl.DataFrame:
        tables = {k: self[k] for k in ("requests", "responses", "rewards")}
        score.run(**tables, examples={"mine": self["examples"]}, config=block, model=model)
        return pl.from_arrow(read_table(self["rewards"], REWARDS))  # type: ignore[return-value]

    def preferences(self, block: SelectionBlock) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        statistics = self.folder / "statistics.json"
        tables = {k: self[k] for k in ("requests", "responses", "rewards", "preferences")}
        select.run(**tables, statistics=statistics, config=block)
        return read_table(self["preferences"], PREFERENCES).to_pylist(), json.loads(statistics.read_text())


ROWS = [example("box", "grounding", box=[10.0, 10, 50, 50]), example("there", "existence", target="yes")]
HIT, MISS = "[0.1, 0.1, 0.5, 0.5]", "[0.6, 0.6, 0.9, 0.9]"
HITS = Benchmark(
    name="pope",
    rewards={"grounding": "iou"},
    columns=lambda answers: {
        "asked": np.ones(len(answers)),
        "hit": np.array([float(a.components["iou"] >= 0.5) for a in answers]),
    },
    metrics={"hits": Measured(share("hit", "asked"), "hits")},
)
"""A benchmark with one metric that replaces another one: lineage needs a module of its name."""
