"""Synthetic answers to official question files, scored by the rewards and evaluated by the
benchmarks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from perceptune.contracts.config import BenchmarkBlock, FileDataset, ModelBlock, RewardBlock
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.metrics import METRICS
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.data.read_files import Files
from perceptune.core.data.row_checks import RowError
from perceptune.core.rewards.reward import Answers
from perceptune.stages.data import import_examples
from perceptune.stages.evaluation import evaluate
from perceptune.stages.preferences import score
from perceptune.stages.sampling import requests
from PIL import Image

from tests.plugins import BENCHMARKS, IMPORTERS, PROTOCOLS, REWARDS

MODEL = ModelBlock(path="nowhere", family="llava")
Row = dict[str, Any]


def questions(kind: str, path: Path) -> list[Row]:
    """The importer's rows of an official file; asserts that none is rejected."""
    rows = [row for _, row in IMPORTERS[kind].rows(Files(path))]
    refused = [str(row) for row in rows if isinstance(row, RowError)]
    assert not refused, refused[:3]
    return rows


def answered(
    protocol: str,
    rows: Sequence[Row],
    texts: Sequence[str | None],
    *,
    verdicts: Sequence[str | None] | None = None,
    resources: Path | None = None,
) -> list[Answered]:
    """The answers as passed to the benchmark, scored by its own rewards."""
    kind = next(k for k in IMPORTERS if protocol.startswith(k))
    found: dict[int, Answered] = {}
    tasks = [str(row.get("task") or IMPORTERS[kind].task) for row in rows]
    for task, reward in BENCHMARKS[protocol].rewards.items():
        of_task = [i for i in range(len(rows)) if tasks[i] == task]
        present = [i for i in of_task if texts[i] is not None]
        scores = REWARDS[reward](
            Answers(
                texts=[str(texts[i]) for i in present],
                targets=[rows[i].get("answer") for i in present],
                boxes=np.full((len(present), 4), np.nan),
                sizes=np.full((len(present), 2), 1.0),
                frame="padded_square",
                sources=[rows[i] for i in present],
                resources=resources,
            )
        )
        place = {i: number for number, i in enumerate(present)}
        for i in of_task:
            at = place.get(i)
            found[i] = Answered(
                example_id=rows[i]["id"],
                task=task,
                question=rows[i]["question"],
                text=texts[i],
                target=rows[i].get("answer"),
                parsed=None if at is None else scores.parsed[at],
                components={} if at is None else {k: float(v[at]) for k, v in scores.components.items()},
                reason="no answer" if at is None else scores.reasons[at],
                source=rows[i],
                verdict=None if verdicts is None else verdicts[i],
            )
    return [found[i] for i in range(len(rows))]


def values(protocol: str, answers: Sequence[Answered]) -> dict[str, float]:
    """Every metric of the benchmark."""
    benchmark = BENCHMARKS[protocol]
    columns = benchmark.columns(answers)
    assert len({column.shape for column in columns.values()}) == 1
    return {name: float(measured.metric(columns)) for name, measured in benchmark.metrics.items()}


def failures(protocol: str, answers: Sequence[Answered], metric: str) -> tuple[int, int]:
    """`n` and `n_failed` of a metric."""
    measured = BENCHMARKS[protocol].metrics[metric]
    covered = [a for a in answers if measured.of(a)]
    return len(covered), sum(map(measured.failed, covered))


def shuffled(answers: Sequence[Answered], seed: int) -> list[Answered]:
    order = np.random.default_rng(seed).permutation(len(answers))
    return [answers[i] for i in order]


def drawn_images(folder: Path, names: Sequence[str]) -> Path:
    """Stand-in images with these names, each of a different colour."""
    for number, name in enumerate(sorted(set(names))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        colour = (number % 251, number // 251, 99)
        Image.new("RGB", (8, 6), colour).save(folder / name)
    return folder


def through_the_stages(
    folder: Path, protocol: str, dataset: FileDataset, texts: Mapping[str, str | list[str] | None], **settings: Any
) -> pl.DataFrame:
    """The metrics table of one policy after all stages from import on, except sampling.

    `texts` maps an example to its answer, or to its sampled answers, of which the first is the
    greedy one.
    """
    benchmark = BENCHMARKS[protocol]
    tables = {name: folder / f"{name}.parquet" for name in ("examples", "requests", "responses", "rewards", "metrics")}
    import_examples.run(config=dataset, examples=tables["examples"])
    shared = {"dataset": "d", "reward": "r", **PROTOCOLS[protocol], "n": 0, "views": ["original"], "resamples": 20}
    block = BenchmarkBlock(**{**benchmark.settings, **shared, **settings})
    requests.run_benchmarks(
        examples={"d": tables["examples"]}, requests=tables["requests"], benchmarks={"b": block}, views={}
    )
    planned = read_table(tables["requests"], REQUESTS).to_pylist()
    responses = [_response(row, texts[row["example_id"]], i) for row in planned for i in range(row["n"])]
    write_table(tables["responses"], RESPONSES, responses, {})
    reward = RewardBlock(tasks=dict(benchmark.rewards), max_failed_share=1.0)
    score.run(
        requests=tables["requests"], responses=tables["responses"], examples={"d": tables["examples"]},
        rewards=tables["rewards"], config=reward, model=MODEL, benchmarks=["b"],
    )  # fmt: skip
    evaluate.run(
        policy="base", base="base", rewards={"b": tables["rewards"]}, base_rewards=None, attention={}, base_attention=None,
        metrics=tables["metrics"], benchmarks={"b": block}, reward_tasks={"r": dict(benchmark.rewards)}, model=MODEL,
        examples={"d": tables["examples"]},
    )  # fmt: skip
    return pl.DataFrame(pl.from_arrow(read_table(tables["metrics"], METRICS)))


def _response(planned: Row, answer_text: str | list[str] | None, index: int) -> Row:
    text = answer_text[index] if isinstance(answer_text, list) else answer_text
    row = {**{k: planned[k] for k in ("request_id", "example_id", "view")}, "sample_index": index, "reason": None}
    if text is None:
        return {**row, "reason": "nothing came"}
    return {**row, "text": text, "token_ids": [1], "logprobs": [-1.0], "finish_reason": "stop", "prompt_tokens": 1}
