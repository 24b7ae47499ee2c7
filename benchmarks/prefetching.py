"""How long a training step waits for its images: made between the steps, and by workers ahead.

    python benchmarks/prefetching.py [--workers 2] [--lists 16] [--model qwen2_5_vl]

Real tables, trainer and encoder: ranked lists of 20 answers, JPEGs of 1,280 x 960 pixels, LLaVA-1.5's
processor (576 image tokens) or Qwen2.5-VL's with up to a million pixels. The step itself is a stand-in
that takes half a second without using a core, as a GPU would. The first step, which starts the workers,
is printed on its own. The processor time of the training process does not depend on what else the
machine does: without workers it is all the work; with them, what is left to do in the step.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import psutil
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.engines.training import trainer
from perceptune.engines.training.feeding import Feed, Source
from perceptune.models.loading import load_model
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import kept_lists
from perceptune.stages.training.looks import MethodLooks
from PIL import Image
from transformers.utils import logging

STEP = 0.5
"""Seconds."""
ANSWERS = 20


def model_of(folder: Path, family: str) -> ModelBlock:
    """A tiny model whose processor does the work of a real one."""
    if family == "llava":
        from shared_prefix import build

        return build(folder, 576)
    from tests.tiny_models import build_tiny_qwen2_5_vl

    path = str(build_tiny_qwen2_5_vl(folder))
    return ModelBlock(path=path, family=family, dtype="float32", pixels=(3136, 10**6), max_model_len=4096)


def tables(folder: Path, lists: int) -> None:
    """Images and ranked lists."""
    random = np.random.default_rng(0)
    examples, preferences = [], []
    for number in range(lists):
        rough = np.kron(random.integers(0, 255, (60, 80, 3)), np.ones((16, 16, 1), dtype=int))
        pixels = np.clip(rough + random.integers(-8, 8, rough.shape), 0, 255).astype(np.uint8)
        file = folder / f"{number}.jpg"
        Image.fromarray(pixels).save(file, quality=90)
        examples.append({
            "example_id": str(number), "task": "grounding", "question": "?", "images": [{"bytes": None, "path": str(file)}],
            "image_sha256": [hashlib.sha256(file.read_bytes()).hexdigest()], "image_hashes": [], "image_sizes": [[1280, 960]],
            "target": None, "box": [10.0, 10.0, 50.0, 50.0], "split": "train", "source": None, "reason": None,
        })  # fmt: skip
        content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
        tokens = random.integers(270, 380, (ANSWERS, 20)).tolist()
        answers = [
            {"sample_index": n, "text": "", "token_ids": ids, "reward": 1 - n / ANSWERS, "role": None}
            for n, ids in enumerate(tokens)
        ]
        preferences.append({
            "group_id": str(number), "example_id": str(number), "request_id": str(number), "task": "grounding", "view": "original",
            "messages": [{"role": "user", "content": content}], "responses": answers, "kept": True, "views": [], "pairs": [],
            "numbers": [], "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences, {})


def stand_in(self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    """Takes the batch, and its share of a step's time."""
    self._sums.add({"loss": 0.0 * len(self._prepare_inputs(inputs).lists)})
    time.sleep(STEP / self.args.gradient_accumulation_steps)
    return torch.zeros(())


def waits(folder: Path, model: ModelBlock, workers: int, lists: int) -> tuple[list[float], float, float]:
    """Seconds that each step waits; processor seconds of this process per list; and the memory of the
    largest worker in MB, without what it shares."""
    prompts = Prompts(model)
    kept = kept_lists(folder / "preferences.parquet", folder / "examples.parquet", ["original"], {}, prompts)
    block = TrainingBlock(
        method="sft", batch_size=lists, micro_batch_size=1, epochs=1, lora=LoraBlock(r=4), save_steps=1000
    )
    source = Source(kept, partial(prompts.encoder, MethodLooks("perpo", {}, "original"), 8192))
    largest = 0.0
    with Feed([source], workers) as feed, tempfile.TemporaryDirectory() as checkpoints:
        base = load_model(model)
        prepared = trainer.prepare(
            trainer.with_adapter(base, block, prompts.family, model.path),
            block, 0, "float32", Path(checkpoints) / "c", "",
        )  # fmt: skip
        fitting = trainer.ListTrainer(**prepared.settings, feed=feed, method=None, parameters=None, view="original")
        since = time.process_time()
        log = trainer.fitted(fitting, None)
        used = (time.process_time() - since) / len(kept)
        for process in psutil.Process().children(recursive=True):
            if "forkserver" in " ".join(process.cmdline()):
                largest = max(largest, process.memory_full_info().uss / 1e6)
    return [entry["data_wait_seconds"] for entry in log], used, largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["llava", "qwen2_5_vl"], default="llava")
    parser.add_argument("--lists", type=int, default=16, help="lists per step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    settings = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    logging.disable_progress_bar()
    trainer.ListTrainer.training_step = stand_in  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_of(folder / "model", settings.model)
        tables(folder, settings.lists * settings.steps)
        for workers in (0, settings.workers):
            found, used, memory = waits(folder, model, workers, settings.lists)
            later = found[1:]
            mean, worst = sum(later) / len(later), max(later)
            print(
                f"{workers} workers: a step of {STEP} s with {settings.lists} lists waits {mean * 1000:.0f} ms "
                f"({mean / STEP:.1%} of it), at most {worst * 1000:.0f} ms, the first one {found[0]:.1f} s; "
                f"processor time {used * 1000:.1f} ms per list"
                + (f"; a worker has {memory:.0f} MB of its own" if workers else "")
            )


if __name__ == "__main__":
    main()
