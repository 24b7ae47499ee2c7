"""Which questions to ask, under which view, and how to draw the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceptune.contracts.config import BenchmarkBlock, SamplingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables import read_table, write_table


def run_samples(*, dataset: str, examples: Path, requests: Path, config: SamplingBlock) -> None:
    """Writes `requests`: one row of n sampled answers per example."""
    chosen = _chosen(dataset, examples, config.split, config.tasks, config.limit)
    drawing = config.model_dump(include={"n", "temperature", "top_p", "top_k", "max_tokens"})
    rows = [_request(row, dataset, None, "sampled", config.view, config.prompt, config.seed, drawing) for row in chosen]
    record = lineage("requests", config.model_dump(mode="json"), {"examples": examples})
    write_table(requests, "requests", rows, record)
    print(f"{len(rows)} requests of {config.n} answers")


def run_benchmarks(*, examples: dict[str, Path], requests: Path, benchmarks: dict[str, BenchmarkBlock]) -> None:
    """Writes `requests`: every benchmark's questions, greedily under each of its views and `n` times under the first."""
    rows = []
    for name, block in benchmarks.items():
        chosen = _chosen(block.dataset, examples[block.dataset], block.split, block.tasks, block.limit)
        shared = {"top_k": 0, "max_tokens": block.max_tokens}
        greedy = {"n": 1, "temperature": 0.0, "top_p": 1.0, **shared}
        sampled = {"n": block.n, "temperature": block.temperature, "top_p": block.top_p, **shared}
        asked = [("greedy", view, greedy) for view in block.views]
        asked += [("sampled", block.views[0], sampled)] if block.n else []
        for row in chosen:
            for condition, view, drawing in asked:
                rows.append(_request(row, block.dataset, name, condition, view, block.prompt, block.seed, drawing))
    parameters = {name: block.model_dump(mode="json") for name, block in benchmarks.items()}
    write_table(requests, "requests", rows, lineage("requests", parameters, examples))
    print(f"{len(rows)} requests of {len(benchmarks)} benchmarks")


def _chosen(
    dataset: str, examples: Path, split: str, tasks: tuple[str, ...], limit: int | None
) -> list[dict[str, Any]]:
    """Good examples of the split and tasks, at most `limit` of each task, in the table's order."""
    table = [row for row in read_table(examples, "examples").to_pylist() if row["reason"] is None]
    chosen, taken = [], dict.fromkeys({row["task"] for row in table}, 0)
    for row in table:
        if row["split"] != split or (tasks and row["task"] not in tasks):
            continue
        taken[row["task"]] += 1
        if limit is None or taken[row["task"]] <= limit:
            chosen.append(row)
    if not chosen:
        there = sorted({f"{row['split']}/{row['task']}" for row in table})
        asked = f"split `{split}`" + (f" and tasks {', '.join(tasks)}" if tasks else "")
        raise UserError(f"dataset `{dataset}` has no examples of {asked}; it has {', '.join(there)}")
    return chosen


def _request(
    row: dict[str, Any],
    dataset: str,
    benchmark: str | None,
    condition: str,
    view: str,
    prompt: str,
    seed: int,
    drawing: dict[str, Any],
) -> dict[str, Any]:
    text = prompt.replace("{question}", row["question"])
    content: list[dict[str, Any]] = [{"type": "image", "text": None} for _ in row["images"]]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    parts = [benchmark or dataset, row["example_id"], view, condition]
    # not n, so that the first answers of many are the same as the answers of few; and the example's own name, since two rows
    # that ask the same of the same image shall draw differently
    drawn = derived_seed(
        "sampling", seed, *row["image_sha256"], text, *parts[1:], *(v for k, v in drawing.items() if k != "n")
    )
    return {
        "request_id": "/".join(parts),
        "example_id": row["example_id"],
        "dataset": dataset,
        "benchmark": benchmark,
        "condition": condition,
        "view": view,
        "messages": messages,
        "seed": drawn,
        **drawing,
    }
