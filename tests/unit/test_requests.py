"""The plan of questions: who is asked what, with which seed."""

from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import BenchmarkBlock, SamplingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import read_table, write_table
from perceptune.stages import requests


def example(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "example_id": str(number), "task": "grounding", "question": f"locate {{thing}} {number}.", "images": [{"bytes": None, "path": "x"}],
        "image_sha256": [f"digest-{number}"], "image_sizes": [[8, 8]], "target": None, "box": [0.0, 0.0, 4.0, 4.0],
        "split": "train", "source": None, "reason": None,
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    rows = [example(n) for n in range(4)]
    rows += [example(4, task="ocr"), example(5, split="test"), example(6, reason="broken")]
    write_table(tmp_path / "examples.parquet", "examples", rows, {})
    return tmp_path / "examples.parquet"


def samples(examples: Path, **settings: Any) -> list[dict[str, Any]]:
    target = examples.with_name("requests.parquet")
    requests.run_samples(dataset="mine", examples=examples, requests=target, config=SamplingBlock(**settings))
    return read_table(target, "requests").to_pylist()


def test_good_examples_of_the_split_are_asked(examples: Path) -> None:
    rows = samples(examples, n=7, temperature=0.8)
    assert [r["example_id"] for r in rows] == ["0", "1", "2", "3", "4"]  # neither the test split nor the broken row
    assert {(r["n"], r["temperature"], r["condition"], r["view"]) for r in rows} == {(7, 0.8, "sampled", "original")}
    assert rows[0]["messages"] == [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "locate {thing} 0."}]}
    ]


def test_tasks_and_limits(examples: Path) -> None:
    assert [r["example_id"] for r in samples(examples, tasks=["ocr"])] == ["4"]
    assert [r["example_id"] for r in samples(examples, limit=2)] == ["0", "1", "4"]  # per task


def test_the_prompt_surrounds_the_question(examples: Path) -> None:
    text = samples(examples, prompt="{question} Answer with a box.")[0]["messages"][0]["content"][1]["text"]
    assert text == "locate {thing} 0. Answer with a box."


def test_seeds_depend_on_the_row_and_its_settings_not_on_its_place(examples: Path) -> None:
    all_rows = {r["example_id"]: r["seed"] for r in samples(examples)}
    few_rows = {r["example_id"]: r["seed"] for r in samples(examples, tasks=["ocr"])}
    assert len(set(all_rows.values())) == 5
    assert few_rows["4"] == all_rows["4"]
    assert samples(examples, seed=1)[0]["seed"] != all_rows["0"]
    assert samples(examples, temperature=0.5)[0]["seed"] != all_rows["0"]


def test_nothing_to_ask_says_what_there_is(examples: Path) -> None:
    with pytest.raises(
        UserError, match=r"no examples of split `dev` and tasks ocr; it has test/grounding, train/grounding, train/ocr"
    ):
        samples(examples, split="dev", tasks=["ocr"])


def test_benchmarks_ask_greedily_under_each_view_and_sample_the_first(examples: Path) -> None:
    blocks = {
        "a": BenchmarkBlock(dataset="mine", reward="r", n=5),
        "b": BenchmarkBlock(dataset="mine", reward="r", split="train", tasks=("ocr",), n=0, views=("original",)),
    }
    target = examples.with_name("requests.parquet")
    requests.run_benchmarks(examples={"mine": examples}, requests=target, benchmarks=blocks, views={})
    rows = read_table(target, "requests").to_pylist()
    assert [r["request_id"] for r in rows] == [
        "a/5/original/greedy",
        "a/5/blank/greedy",
        "a/5/original/sampled",
        "b/4/original/greedy",
    ]
    assert [(r["n"], r["temperature"]) for r in rows] == [(1, 0), (1, 0), (5, 1), (1, 0)]
    assert [r["benchmark"] for r in rows] == ["a", "a", "a", "b"]
