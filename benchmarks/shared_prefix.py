"""Time saved by the shared-prefix pass: one training step over the same lists, computed in three
ways.

    python benchmarks/shared_prefix.py [--image-tokens 576] [--lists 8] [--responses 20]

* lists of N, PerPO loss: shared prefix, or N separate sequences in one padded batch (as in PerPO's
  released trainer)
* pairs of best and worst, DPO loss: shared prefix, or TRL's DPOTrainer with the same model, LoRA,
  batch and dtype; reference log-probs are stored beforehand for the former, and computed in every
  step by TRL (which cannot store them for images)

Prints a table with ratios; nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import datasets
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.plugins import load
from perceptune.core.methods.method import Group
from perceptune.engines.training.shared_prefix import Prompted, packed, response_logps
from perceptune.models.loading import load_model, load_processor
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import LlavaForConditionalGeneration, PreTrainedModel
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer

from tests import tiny_models as tiny

FAMILY = load("family", "llava")
ANSWER = "[0.{:02d}, 0.{:02d}, 0.{:02d}, 0.{:02d}]"


def build(folder: Path, image_tokens: int) -> ModelBlock:
    """Write a random-weight LLaVA with `image_tokens` (a square number) tokens per image."""
    side = round(image_tokens**0.5) * tiny.PATCH_SIZE
    config = tiny.llava_config(tiny.LARGE)
    config.vision_config.image_size = side
    config.image_seq_length = image_tokens
    torch.manual_seed(0)
    tiny.save_weights(LlavaForConditionalGeneration(config), folder)
    processor = tiny.llava_processor()
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    processor.save_pretrained(folder)
    return ModelBlock(path=str(folder), family="llava", dtype="float32")


def adapted(block: ModelBlock) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules=FAMILY.lora_targets["language"])
    return get_peft_model(load_model(block), config).train()  # type: ignore[return-value]


def seconds(step: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a step, excluding the first (warm-up)."""
    step()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def perpo(logps: Sequence[torch.Tensor]) -> torch.Tensor:
    method, parameters = load("method", "perpo"), load("method", "perpo").Parameters()
    groups = [Group(p, p.detach(), torch.ones(len(p)), torch.linspace(0.9, 0.1, len(p))) for p in logps]
    return torch.stack([method.loss(group, parameters) for group in groups]).mean()


def shared_step(model: PreTrainedModel, lists: Sequence[Prompted]) -> Callable[[], None]:
    def step() -> None:
        batch = packed(lists, FAMILY, 0)
        perpo(response_logps(model, batch).split(batch.counts)).backward()
        model.zero_grad()

    return step


def separate_step(model: PreTrainedModel, lists: Sequence[Prompted]) -> Callable[[], None]:
    """One sequence per response, with its own copy of image and prompt, all in one padded batch."""

    def step() -> None:
        rows = [(one, list(response)) for one in lists for response in one.responses]
        ids = [torch.cat([one.prefix["input_ids"][0], torch.tensor(response)]) for one, response in rows]
        batch = pad_sequence(ids, batch_first=True)
        mask = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
        pixels = torch.cat([one.prefix["pixel_values"] for one, _ in rows])
        logits = model(input_ids=batch, attention_mask=mask, pixel_values=pixels, use_cache=False).logits
        logps = logits[:, :-1].float().log_softmax(-1).gather(2, batch[:, 1:, None])[..., 0]
        sums = []
        for row, (one, response) in enumerate(rows):
            start = one.prefix["input_ids"].shape[1] - 1
            sums.append(logps[row, start : start + len(response)].sum())
        perpo(torch.stack(sums).split([len(one.responses) for one in lists])).backward()
        model.zero_grad()

    return step


def trl_seconds(
    block: ModelBlock, images: Sequence[Image.Image], pairs: Sequence[tuple[str, str]], repeats: int
) -> float:
    """Seconds per optimiser step of TRL's DPOTrainer on the same pairs."""
    question = [{"type": "image"}, {"type": "text", "text": "locate the red circle."}]
    rows = {
        "images": [[image] for image in images] * (repeats + 1),
        "prompt": [[{"role": "user", "content": question}]] * len(pairs) * (repeats + 1),
        "chosen": [[{"role": "assistant", "content": [{"type": "text", "text": f" {c}"}]}] for c, _ in pairs]
        * (repeats + 1),
        "rejected": [[{"role": "assistant", "content": [{"type": "text", "text": f" {r}"}]}] for _, r in pairs]
        * (repeats + 1),
    }
    times: list[float] = []

    class Timed(DPOTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            started = time.perf_counter()
            loss = super().training_step(*args, **kwargs)
            times.append(time.perf_counter() - started)
            return loss

    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder, per_device_train_batch_size=len(pairs), num_train_epochs=1, report_to="none", use_cpu=True,
            save_strategy="no", max_length=None, gradient_checkpointing=False, bf16=False, disable_tqdm=True, logging_steps=1000,
        )  # fmt: skip
        trainer = Timed(
            model=load_model(block),
            args=arguments,
            processing_class=load_processor(block),
            train_dataset=datasets.Dataset.from_dict(rows),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=FAMILY.lora_targets["language"]),
        )
        trainer.train()
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-tokens", type=int, default=64, help="64 as in the bundled model, 576 as in LLaVA-1.5")
    parser.add_argument("--lists", type=int, default=8, help="lists per step")
    parser.add_argument("--responses", type=int, default=20, help="responses per list")
    parser.add_argument("--repeats", type=int, default=5)
    settings = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        block = build(Path(folder), settings.image_tokens)
        processor, model = load_processor(block), adapted(block)
        content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
        lists, images, pairs = [], [], []
        for _ in range(settings.lists):
            side = round(settings.image_tokens**0.5) * tiny.PATCH_SIZE
            image = Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8))
            prefix = FAMILY.prefix(processor, [{"role": "user", "content": content}], [image])
            texts = [ANSWER.format(*random.integers(0, 100, 4)) for _ in range(settings.responses)]
            tokens = [FAMILY.answer_ids(processor, text) for text in texts]
            lists.append(Prompted(prefix, FAMILY.positions(model, prefix), tokens))
            images.append(image)
            pairs.append((texts[0], texts[-1]))
        ends = [Prompted(one.prefix, one.positions, [one.responses[0], one.responses[-1]]) for one in lists]
        measured = {
            f"list of {settings.responses}, shared prefix": seconds(shared_step(model, lists), settings.repeats),
            f"list of {settings.responses}, separate sequences": seconds(separate_step(model, lists), settings.repeats),
            "pairs, shared prefix": seconds(shared_step(model, ends), settings.repeats),
            "pairs, TRL DPOTrainer": trl_seconds(block, images, pairs, settings.repeats),
        }
    threads = torch.get_num_threads()
    print(
        f"{settings.lists} lists, {settings.image_tokens} image tokens, float32, {threads} threads, median of {settings.repeats}"
    )
    names = list(measured)
    for fast, slow in (names[:2], names[2:]):
        print(f"{fast:36} {measured[fast]:8.3f} s")
        print(f"{slow:36} {measured[slow]:8.3f} s   {measured[slow] / measured[fast]:.1f} times as long")


if __name__ == "__main__":
    main()
