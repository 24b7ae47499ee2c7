"""Training steps of a model with the shape of Qwen2.5-VL-3B on one GPU: share of the GPU's peak that
useful arithmetic reaches (MFU), memory, and waiting for data.

    python benchmarks/gpu_training.py                     # one GPU with 80 GB, at most 8 minutes
    python benchmarks/gpu_training.py --tiny --device cpu # the same code with a tiny model, a minute

Needs the package with torch, transformers and peft, and no vLLM; weights are random, images are
JPEGs of 1,280 x 960 made here. Each setting runs the engine's own training (`trainer.train`): 20
boxes per list (PerPO), pairs (DPO), and eight answers of 1,024 tokens. If TRL is installed, its
DPOTrainer runs on the same pairs, with the same adapter, batch and dtype; it computes reference
log-probs in every step, which perceptune stores.

Useful FLOPs are the needed ones of `training_flops.py`, and the linear layers of the vision tower
once per image. Recomputation by gradient checkpointing is not useful. Steps are timed from the
start of the forward pass to the end of the backward pass; waiting is the time that the Trainer
spends on getting a batch. Worker processes make perceptune's batches ahead, as many as in trainings.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

if "cpu" in sys.argv:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported

import numpy as np
import torch
from peft import LoraConfig
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.plugins import load
from perceptune.core.views.view import Recipe
from perceptune.engines.training import trainer
from perceptune.engines.training.branch_attention import suits
from perceptune.engines.training.feeding import Feed, Layout, Source
from perceptune.engines.training.groups import Encoder, RankedList, Shown
from perceptune.models.loading import outline
from perceptune.runtime.ahead import workers_of
from perceptune.stages.training.looks import MethodLooks
from PIL import Image
from training_flops import FAMILY, Setting, needed
from transformers import (
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Trainer,
)
from transformers.utils import logging

from tests.tiny_models.qwens import build_tiny_qwen2_5_vl

PEAKS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "4090": 165}
"""Dense bfloat16 TFLOP/s by a part of the GPU's name (data sheets)."""
QUESTION = "Where is the red circle? Answer with its box."
WARM_UP = 2
"""Steps that are not counted."""


@dataclass(frozen=True)
class Work:
    """A setting of the benchmark."""

    name: str
    method: str
    lists: int
    """Lists per step."""
    answers: int
    tokens: tuple[int, int]
    """Least and most tokens of an answer."""
    checkpointing: bool = False


@dataclass
class Clock:
    """Seconds of each call, with all work of the GPU that it started."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def watching(self, *names: str) -> Iterator[None]:
        """Times these methods of the Trainer while the block runs."""
        patches = [mock.patch.object(Trainer, name, self._timed(name, getattr(Trainer, name))) for name in names]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronised = time_now()
            found = method(*args, **kwargs)
            self.seconds.setdefault(name, []).append(time_now() - synchronised)
            return found

        return timed

    def median(self, name: str) -> float:
        """Median without the warm-up."""
        return statistics.median(self.seconds[name][WARM_UP:])


def time_now() -> float:
    """Seconds, after the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def build(folder: Path, tiny: bool) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A random model on the device, and its processor."""
    build_tiny_qwen2_5_vl(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = Qwen2_5_VLConfig.from_pretrained(folder)
    if not tiny:
        text = {
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        }  # fmt: skip
        config.text_config = type(config.text_config)(**text)
        config.vision_config = type(config.vision_config)(
            depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=2048, patch_size=14,
            window_size=112, fullatt_block_indexes=[7, 15, 23, 31],
        )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model, processor_of(folder, tiny)


def processor_of(folder: Path, tiny: bool) -> ProcessorMixin:
    """The processor, with a byte-level tokenizer."""
    processor = AutoProcessor.from_pretrained(folder)
    most = (4 if tiny else 400) * 28 * 28  # tokens of an image, of 28 x 28 pixels each
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": most}
    return processor


def encoder_of(folder: Path, tiny: bool, method: str, dtype: torch.dtype) -> Encoder:
    """An encoder, in any process. Position ids do not depend on the size of the model."""
    model = outline(ModelBlock(path=str(folder), family=FAMILY.name))
    looks = MethodLooks(method, {}, "original")
    return Encoder(FAMILY, processor_of(folder, tiny), model, looks, dtype=dtype)


def lists_of(folder: Path, work: Work, steps: int, processor: ProcessorMixin) -> tuple[list[RankedList], list[Any]]:
    """Lists for all steps, and the texts of their answers."""
    random = np.random.default_rng(0)
    content = [{"type": "image", "text": None}, {"type": "text", "text": QUESTION}]
    views = {"original": Shown(Recipe("original"), [{"role": "user", "content": content}])}
    made, texts = [], []
    for number in range(work.lists * steps):
        path = folder / f"{work.method}-{work.answers}-{number}.jpg"
        pixels = random.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1280, 960)).save(path)
        lengths = random.integers(work.tokens[0], work.tokens[1] + 1, work.answers)
        answers = ["".join(random.choice(list("abcdefgh "), length - 1)) for length in lengths]
        tokens = [FAMILY.answer_ids(processor, answer) for answer in answers]
        made.append(
            RankedList(
                str(number),
                [{"bytes": None, "path": str(path)}],
                views,
                tokens,
                np.linspace(0.9, 0.1, work.answers).tolist(),
                reference={"original": [-5.0 * len(one) for one in tokens]},
            )
        )
        texts.append((path, answers))
    return made, texts


def vision_flops(model: PreTrainedModel, prefix: Any) -> float:
    """FLOPs of the vision tower's linear layers for a prompt's images, which have no backward pass."""
    patches, total = prefix["pixel_values"].shape[0], 0.0
    for name, layer in model.named_modules():
        if "visual." in name and isinstance(layer, torch.nn.Linear):
            total += 2 * layer.weight.numel() * (patches / 4 if ".merger." in name else patches)
    return total


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    step: float
    """Seconds of forward and backward pass."""
    wait: float
    """Seconds of waiting for a batch."""
    flops: float
    """Useful FLOPs of a step."""
    memory: float
    """Peak of the GPU's memory, GiB."""
    layout: str

    def row(self, name: str, peak: float | None) -> str:
        """As text."""
        rate = self.flops / self.step / 1e12
        share = f"{100 * rate / peak:5.1f} %" if peak else "      -"
        numbers = f"{self.step:8.3f}   {self.wait:8.3f}   {rate:10.2f}   {share}   {self.memory:8.1f}"
        return f"{name:40} {numbers}   {self.layout}"


def here(folder: Path, work: Work, steps: int, tiny: bool, workers: int | None) -> Measured:
    """The engine's training on `steps` steps."""
    model, processor = build(folder / "model", tiny)
    lists, _ = lists_of(folder, work, steps, processor)
    method: Any = load("method", work.method)
    block = TrainingBlock(
        method=work.method, batch_size=work.lists, micro_batch_size=work.lists, epochs=1, save_steps=10**6,
        gradient_checkpointing=work.checkpointing, lora=LoraBlock(r=4 if tiny else 128, alpha=8 if tiny else 256),
    )  # fmt: skip
    adapted = trainer.with_adapter(model, block, FAMILY, str(folder))
    encoder = partial(encoder_of, folder / "model", tiny, work.method, model.dtype)
    packed = encoder()(lists[: work.lists], Layout(suits(model))).packed
    prefix = FAMILY.prefix(
        processor, lists[0].views["original"].messages, [Image.open(lists[0].images[0]["path"]).convert("RGB")]
    )
    prompt, numbers = prefix["input_ids"].shape[1], [[len(r) for r in one.responses] for one in lists[: work.lists]]
    useful = needed(Setting(work.name, [prompt] * work.lists, numbers), adapted)
    useful += work.lists * vision_flops(model, prefix)
    reset()
    clock = Clock()
    if workers is None:
        workers = workers_of(ModelBlock(path=str(folder), family=FAMILY.name))
    with Feed([Source(lists, encoder)], workers) as feed, clock.watching("training_step"), silent():
        log = trainer.train(
            adapted, feed, method=method, parameters=method.Parameters(), block=block,
            dtype=str(model.dtype).removeprefix("torch."), checkpoints=folder / f"{work.name}", fingerprint="",
        )  # fmt: skip
    layout = "rows with a mask" if packed.branches is None else "one row, FlashAttention"
    waits = [entry["data_wait_seconds"] for entry in log]  # a step of the trainer starts with waiting
    seconds = [whole - wait for whole, wait in zip(clock.seconds["training_step"], waits, strict=True)]
    medians = [statistics.median(numbers[WARM_UP:]) for numbers in (seconds, waits)]
    return Measured(*medians, useful, peak_memory(), layout)


def trl(folder: Path, work: Work, steps: int, tiny: bool, useful: float) -> Measured:
    """TRL's DPOTrainer on the same pairs."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    model, processor = build(folder / "model", tiny)
    _, texts = lists_of(folder, work, steps, processor)
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]

    def said(text: str) -> list[Any]:
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    rows = {
        "images": [[str(path)] for path, _ in texts],
        "prompt": [question] * len(texts),
        "chosen": [said(answers[0]) for _, answers in texts],
        "rejected": [said(answers[-1]) for _, answers in texts],
    }
    with silent():
        table = datasets.Dataset.from_dict(rows).cast_column("images", datasets.List(datasets.Image()))
    rank = 4 if tiny else 128
    cuda = torch.cuda.is_available()
    arguments = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=work.lists, num_train_epochs=1, report_to="none",
        save_strategy="no", max_length=None, gradient_checkpointing=work.checkpointing, bf16=cuda, use_cpu=not cuda,
        disable_tqdm=True, logging_steps=10**6,
    )  # fmt: skip
    reset()
    clock = Clock()
    with clock.watching("training_step", "get_batch_samples"), silent():
        DPOTrainer(
            model=model,
            args=arguments,
            processing_class=processor,
            train_dataset=table,
            peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=FAMILY.lora_targets["language"]),
        ).train()
    return Measured(
        clock.median("training_step"), clock.median("get_batch_samples"), useful, peak_memory(), "separate sequences"
    )


@contextmanager
def silent() -> Iterator[None]:
    """Without the progress of trainers."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def reset() -> None:
    """Starts a new peak of memory, without the model before."""
    gc.collect()  # trainers have reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """GiB, 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def peak_rate() -> float | None:
    """The GPU's peak in TFLOP/s, if known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((float(rate) for part, rate in PEAKS.items() if part in name), None)


def works(tiny: bool) -> Sequence[Work]:
    """The settings."""
    if tiny:
        return (
            Work("2 lists of 3 boxes (PerPO)", "perpo", 2, 3, (4, 6)),
            Work("2 pairs (DPO)", "dpo", 2, 2, (4, 9)),
            Work("3 answers of 16 tokens (PerPO)", "perpo", 1, 3, (16, 16), checkpointing=True),
        )
    return (
        Work("4 lists of 20 boxes (PerPO)", "perpo", 4, 20, (20, 24)),
        Work("8 pairs (DPO)", "dpo", 8, 2, (40, 240)),
        Work("8 answers of 1,024 tokens (PerPO)", "perpo", 1, 8, (1024, 1024), checkpointing=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to test the script")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=8, help=f"steps per setting, of which {WARM_UP} are not counted")
    parser.add_argument("--workers", type=int, help="processes that make batches; by default as in trainings")
    parser.add_argument("--minutes", type=float, default=8, help="no setting starts after 3/4 of this time")
    settings = parser.parse_args()
    if settings.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU: use `--tiny --device cpu` to test the script")
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started, peak = time.perf_counter(), peak_rate()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, {'tiny model' if settings.tiny else 'shape of Qwen2.5-VL-3B'}, PyTorch {torch.__version__}")
    print(f"{'one step of':40} {'step, s':>8}   {'wait, s':>8}   {'TFLOP/s':>10}   {'MFU':>7}   {'GiB':>8}   layout")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for work in works(settings.tiny):
            if time.perf_counter() - started > 45 * settings.minutes:
                print(f"{work.name:40} not measured: no time left")
                continue
            found = here(folder, work, settings.steps, settings.tiny, settings.workers)
            print(found.row(work.name, peak), flush=True)
            if work.method == "dpo":
                try:
                    other = trl(folder, work, settings.steps, settings.tiny, found.flops)
                except ModuleNotFoundError as error:
                    print(f"  TRL is not measured: {error}")
                else:
                    print(other.row("  TRL's DPOTrainer, same pairs", peak), flush=True)
                    print(f"  {other.step / found.step:.1f} times as long")


if __name__ == "__main__":
    main()
