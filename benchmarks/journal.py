"""Cost of committing answers: the sampling stage compared with bare `LLM.chat` on the same
requests.

    python benchmarks/journal.py [--questions 400] [--n 20] [--rounds 3]

The two alternate, each in its own process; starting and stopping the engine is excluded from both.
The stage additionally checks and opens every image, applies the view, and writes its tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODEL = "resources/tiny-llava/model"


def block() -> object:
    """The model block that both use."""
    from perceptune.contracts.config import EngineBlock, ModelBlock

    engine = EngineBlock(enforce_eager=True)
    return ModelBlock(path=MODEL, family="llava", dtype="float32", max_model_len=512, engine=engine)


def prepare(folder: Path, questions: int, n: int) -> None:
    """Write the data, examples and requests."""
    from perceptune.contracts.config import FileDataset, SamplingBlock
    from perceptune.core.data.shapes import write_dataset
    from perceptune.stages.data import import_examples
    from perceptune.stages.sampling import requests

    write_dataset(folder / "data", 0, {"train": {"grounding": questions}})
    dataset = FileDataset(kind="jsonl", path=str(folder / "data/data.jsonl"))
    import_examples.run(config=dataset, examples=folder / "examples.parquet")
    config = SamplingBlock(n=n, max_tokens=24)
    requests.run_samples(
        dataset="d", examples=folder / "examples.parquet", requests=folder / "requests.parquet", config=config
    )


def stage(folder: Path) -> tuple[float, int]:
    """Seconds and tokens of the stage, excluding the engine's start."""
    from perceptune.contracts.tables.io import read_table
    from perceptune.contracts.tables.responses import RESPONSES
    from perceptune.engines.vllm.sampler import Sampler
    from perceptune.stages.sampling import responses

    starting: list[float] = []
    begin = Sampler.__init__

    def timed(self: Sampler, *arguments: object) -> None:
        since = time.perf_counter()
        begin(self, *arguments)  # type: ignore[arg-type]
        starting.append(time.perf_counter() - since)

    ended: list[float] = []
    write = responses.table_writer

    @contextmanager
    def noted(*arguments: object) -> Iterator[object]:
        with write(*arguments) as table:  # type: ignore[arg-type]
            yield table
        ended.append(time.perf_counter())

    Sampler.__init__ = timed  # type: ignore[method-assign, assignment]
    responses.table_writer = noted  # type: ignore[assignment]
    since = time.perf_counter()
    responses.run(
        requests=folder / "requests.parquet", examples={"d": folder / "examples.parquet"},
        responses=folder / "responses.parquet", journal=folder / f"journal-{os.getpid()}", model=block(), weights="w",  # type: ignore[arg-type]
        adapter=None, shard=0, shards=1,
    )  # fmt: skip
    seconds = ended[-1] - since - sum(starting)  # the engine stops after the table is written
    tokens = sum(len(ids) for ids in read_table(folder / "responses.parquet", RESPONSES)["token_ids"].to_pylist())
    return seconds, tokens


def bare(folder: Path) -> tuple[float, int]:
    """Seconds and tokens of one `LLM.chat` over all requests, excluding the opening of images."""
    from perceptune.contracts.tables.examples import EXAMPLES
    from perceptune.contracts.tables.io import read_table
    from perceptune.contracts.tables.requests import REQUESTS
    from perceptune.engines.vllm.preparation import _sampling
    from perceptune.engines.vllm.requests import Question
    from perceptune.engines.vllm.sampler import LLM, _placement
    from perceptune.models.families.family import family_of
    from perceptune.models.loading import load_processor
    from perceptune.stages.sampling.responses import DRAWING
    from PIL import Image

    model = block()
    engine = LLM(
        model=MODEL, dtype="float32", max_model_len=512, limit_mm_per_prompt={"image": 1, "video": 0}, seed=0,
        logprobs_mode="raw_logprobs", disable_log_stats=True, **_placement(model, 0),  # type: ignore[arg-type]
    )  # fmt: skip
    since = time.perf_counter()
    never = family_of(model).placeholder_ids(load_processor(model))  # type: ignore[arg-type]
    images = {
        r["example_id"]: r["images"][0]["path"] for r in read_table(folder / "examples.parquet", EXAMPLES).to_pylist()
    }
    conversations, sampling = [], []
    for row in read_table(folder / "requests.parquet", REQUESTS).to_pylist():
        opened = Image.open(images[row["example_id"]]).convert("RGB")
        text = row["messages"][0]["content"][-1]["text"]
        content = [{"type": "image_pil", "image_pil": opened}, {"type": "text", "text": text}]
        conversations.append([{"role": "user", "content": content}])
        drawing = {key: row[key] for key in DRAWING}
        sampling.append(_sampling(Question(row["messages"], [opened], seed=row["seed"], **drawing), never))
    outputs = engine.chat(conversations, sampling, use_tqdm=False)  # type: ignore[arg-type]
    seconds = time.perf_counter() - since
    return seconds, sum(len(answer.token_ids) for output in outputs for answer in output.outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        prepare(Path(temporary), settings.questions, settings.n)
        rates: dict[str, list[float]] = {"bare": [], "stage": []}
        for _ in range(settings.rounds):
            for name, seen in rates.items():
                command = [sys.executable, __file__, "--child", name, temporary]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr[-3000:])
                seconds, tokens = json.loads(done.stdout.splitlines()[-1])
                seen.append(tokens / seconds)
                print(f"{name}: {tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} per second", flush=True)
    best = {name: max(seen) for name, seen in rates.items()}
    print(
        f"best of {settings.rounds}: the stage takes {best['bare'] / best['stage']:.3f} times as long per token as bare LLM.chat"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps({"bare": bare, "stage": stage}[sys.argv[2]](Path(sys.argv[3]))))
    else:
        main()
