"""Reading of training data: groups, stored log-probs and images.

    python benchmarks/training_data.py [--quick] [--only images]

* the first batch of 16 of many groups, as log-probs and training start
* images of an examples table that holds them, in random order
* the stored-log-probs and the training stage on few groups of such a table, with a tiny model
"""

from __future__ import annotations

import hashlib
import io
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from before_now import ROOT, Row, main
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.core.methods.method import Stored
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.training import stored_logprobs, train
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import kept_lists
from PIL import Image

MODEL = ModelBlock(path=str(ROOT / "resources/tiny-llava/model"), family="llava", dtype="float32")
TOKENS = 22
"""Tokens of an answer."""
BATCH = 16


def many_groups(folder: Path, groups: int, answers: int) -> None:
    """Groups of equally many answers, and 500 images in files that they share."""
    files = []
    for number in range(500):
        files.append(folder / f"{number}.jpg")
        files[-1].write_bytes(picture(number, 320 + number % 40 * 8, 240))
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    rows = [
        example(n, {"bytes": None, "path": str(files[n % 500])}, digests[n % 500], (320 + n % 40 * 8, 240))
        for n in range(groups)
    ]
    write_table(folder / "examples.parquet", EXAMPLES, rows, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences(range(groups), answers), {})


def first_groups(folder: Path, groups: int, answers: int) -> dict[str, Any]:
    """From the tables to a batch of groups in random order, as at the start of training."""
    prompts = Prompts(MODEL)
    before, since = peak(), time.perf_counter()
    lists = kept_lists(folder / "preferences.parquet", folder / "examples.parquet", ["original"], {}, prompts)
    ready = time.perf_counter()
    chosen = [lists[n] for n in random.Random(0).sample(range(len(lists)), BATCH)]
    done = time.perf_counter()
    return {
        "without the processor": f"{done - since:.1f} s",
        "of it the batch": f"{done - ready:.2f} s",
        "memory beyond the processor": f"{peak() - before:.0f} MB",
        "tokens": sum(one.tokens for one in chosen),
    }


def table_of_images(folder: Path, images: int, side: int, lists: int) -> None:
    """A table that holds its images, JPEG files of noise, and groups of its first examples."""
    rows = []
    for number in range(images):
        data = picture(number, side, side * 3 // 4)
        image = {"bytes": data, "path": None}
        rows.append(example(number, image, hashlib.sha256(data).hexdigest(), (side, side * 3 // 4)))
    write_table(folder / "examples.parquet", EXAMPLES, rows, {})
    chosen = range(0, images, images // lists)[:lists]
    write_table(folder / "preferences.parquet", PREFERENCES, preferences(chosen, 20), {})


def random_images(folder: Path, images: int, side: int, lists: int) -> dict[str, Any]:
    """Reads the files of some images in random order."""
    before, since = peak(), time.perf_counter()
    known = IllustratedExamples(folder / "examples.parquet")
    for number in random.Random(0).sample(range(images), lists):
        known.files(f"train-{number}")
    return {
        "each": f"{(time.perf_counter() - since) / lists * 1000:.1f} ms",
        "memory": f"{peak() - before:.0f} MB",
    }


def logprobs_of_lists(folder: Path, images: int, side: int, lists: int) -> dict[str, Any]:
    """The stored-log-probs stage."""
    before = peak()
    stored_logprobs.run(
        preferences=folder / "preferences.parquet",
        examples=folder / "examples.parquet",
        terms=folder / "terms.parquet",
        model=MODEL,
        weights="w",
        stored=[Stored("reference", "original")],
        adapter=None,
        views={},
    )
    return {"memory beyond the libraries": f"{peak() - before:.0f} MB"}


def lists_with_logprobs(folder: Path, images: int, side: int, lists: int) -> None:
    """The input of the training stage."""
    table_of_images(folder, images, side, lists)
    logprobs_of_lists(folder, images, side, lists)


def training_on_lists(folder: Path, images: int, side: int, lists: int) -> dict[str, Any]:
    """The training stage."""
    before = peak()
    train.run(
        experiment="e",
        preferences=folder / "preferences.parquet",
        examples=folder / "examples.parquet",
        terms={"original": folder / "terms.parquet"},
        adapter=folder / "adapter",
        training=folder / "training.parquet",
        checkpoints=folder / "checkpoints",
        model=MODEL,
        weights="w",
        config=TrainingBlock(method="perpo", lora=LoraBlock(r=4, alpha=8), batch_size=16, micro_batch_size=4),
        views={},
    )
    return {"memory beyond the libraries": f"{peak() - before:.0f} MB"}


def peak() -> float:
    """Most memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def picture(number: int, width: int, height: int) -> bytes:
    """A JPEG file of noise in a few colours."""
    noise = np.random.default_rng(number).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def example(number: int, image: dict[str, Any], digest: str, size: tuple[int, int]) -> dict[str, Any]:
    """A row of an examples table."""
    return {
        "example_id": f"train-{number}", "task": "grounding", "question": f"locate number {number}.", "images": [image],
        "image_sha256": [digest], "image_sizes": [list(size)], "image_hashes": [b""], "target": None, "box": [8.0, 8.0, 64.0, 64.0],
        "split": "train", "source": None, "reason": None,
    }  # fmt: skip


def preferences(examples: range, answers: int) -> pa.Table:
    """Kept groups of answers of random tokens, best first."""
    return pa.concat_tables(list(_preferences(examples, answers)))


def _preferences(examples: range, answers: int) -> Iterator[pa.Table]:
    chance = np.random.default_rng(0)
    rewards = np.linspace(0.9, 0.1, answers).tolist()
    for start in range(0, len(examples), 1000):
        rows = []
        for number in examples[start : start + 1000]:
            lengths = chance.integers(TOKENS - 4, TOKENS + 4, answers)
            ids = np.split(chance.integers(270, 380, lengths.sum()), lengths.cumsum()[:-1])
            responses = [
                {
                    "sample_index": n,
                    "text": f"[0.{number % 90}, 0.{n}, 0.5, 0.9]",
                    "token_ids": ids[n],
                    "reward": rewards[n],
                }
                for n in range(answers)
            ]
            content = [{"type": "image", "text": None}, {"type": "text", "text": f"locate number {number}."}]
            name = f"train/{number}/original/sampled"
            rows.append({
                "group_id": name, "example_id": f"train-{number}", "request_id": name, "task": "grounding", "view": "original",
                "messages": [{"role": "user", "content": content}], "responses": responses, "views": [], "pairs": [],
                "numbers": [], "kept": True, "reason": None,
            })  # fmt: skip
        yield pa.Table.from_pylist(rows, schema=PREFERENCES.schema)


GROUPS = {"groups": 50_000, "answers": 20}
TABLE = {"images": 8000, "side": 640, "lists": 64}
QUICK = {"images": 400, "side": 640, "lists": 16}

ROWS = [
    Row("first batch", many_groups, first_groups, GROUPS, {"groups": 5000, "answers": 20}, "2 s, model + 300 MB"),
    Row("random images", table_of_images, random_images, {**TABLE, "lists": 200}, QUICK),
    Row("log-probs", table_of_images, logprobs_of_lists, TABLE, QUICK, "model + 300 MB"),
    Row("training", lists_with_logprobs, training_on_lists, TABLE, QUICK, "model + 300 MB"),
]  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
