"""Peak memory of evaluation: answers are read as columns."""

import subprocess
import sys

import pytest

QUESTIONS, ANSWERS = 10_000, 20
LIMIT = 300
"""MB beyond the imports. As dictionaries, these answers of two policies take more than 400."""
PROGRAM = """
import resource, sys
from pathlib import Path

import numpy as np
import polars as pl
from perceptune.contracts.config import BenchmarkBlock, ModelBlock
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.stages.evaluation import evaluate

folder, questions, n = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if len(sys.argv) == 5:
    shape = {"number": np.repeat(np.arange(questions), n), "sample_index": np.tile(np.arange(n, dtype=np.int32), questions)}
    correct = pl.struct(name=pl.lit("correct"), value=pl.col("sample_index") / n)
    fixed = {"task": "open", "benchmark": "b", "condition": "sampled", "view": "original", "reward": 0.5}
    empty = dict.fromkeys(("target", "parsed", "reason"), pl.lit(None, pl.String))
    table = pl.DataFrame(shape).select(
        "sample_index", request_id=pl.format("b/{}/original", "number"), example_id=pl.format("e{}", "number"),
        text=pl.lit("an answer"), answer=pl.lit("an answer"), components=pl.concat_list(correct),
        **{name: pl.lit(value) for name, value in fixed.items()}, **empty,
    )
    write_table(folder / "rewards.parquet", REWARDS, table, {})
else:
    before = peak()
    evaluate.run(
        policy="p", base="base", rewards={"b": folder / "rewards.parquet"}, base_rewards={"b": folder / "rewards.parquet"},
        attention={}, base_attention=None, metrics=folder / "metrics.parquet",
        benchmarks={"b": BenchmarkBlock(dataset="d", reward="r", n=n, resamples=9)},
        reward_tasks={"r": {"open": "exact_match"}}, model=ModelBlock(path="nowhere", family="llava"),
    )
    print(peak() - before)
"""


def test_answers_are_not_read_as_dictionaries(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("large")
    program = [sys.executable, "-c", PROGRAM, str(folder), str(QUESTIONS), str(ANSWERS)]
    subprocess.run([*program, "write"], check=True)
    measured = subprocess.run(program, check=True, capture_output=True, text=True)
    assert float(measured.stdout) < LIMIT
