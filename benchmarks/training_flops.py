"""Arithmetic that a training step executes, divided by the arithmetic that it needs.

    python benchmarks/training_flops.py

The language model has the shape of Qwen2.5-VL-3B (36 layers) with LoRA on all its linear layers. It
is on PyTorch's meta device, which computes shapes only, so the numbers are exact on any machine and
need neither weights nor a GPU. Text tokens stand for those of the images. The vision tower runs once
per image in all layouts. It is left out, and counted on its own: what `feature_cache` saves, in a pass
that finds all features, of the needed arithmetic with the tower. So is that of LLaVA-1.5-7B, whose
images have 576 tokens and a smaller tower.

Needed, in floating-point operations of forward and backward pass:

* linear layers: every token of a prompt and every token that predicts another one, once; frozen
  weights have no gradient of their own
* head: every answer token, once forward and once backward
* attention: pairs of tokens that see each other, so half of a causal square; two matrix products
  forward and four backward

Executed: what `FlopCounterMode` counts. It counts attention with a mask in full. For FlashAttention,
this script counts whole tiles (those that have a visible pair), and a fifth product backward, which
computes the scores again.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from perceptune.contracts.plugins import load
from perceptune.engines.training import shared_prefix
from perceptune.engines.training.shared_prefix import Packed, Prompted, branched, packed, response_logps
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.utils import logging

FAMILY = load("family", "qwen2_5_vl")
RANK = 128
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
    "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
"""The vision tower of Qwen2.5-VL-3B."""
TILES = {"forward": (128, 64), "backward": (64, 128)}
"""Queries and keys of a tile of FlashAttention 2 with heads of 128 numbers, on an H100."""


@dataclass(frozen=True)
class Setting:
    """One micro batch: tokens of each prompt, and of each of its answers."""

    name: str
    prompts: Sequence[int]
    answers: Sequence[Sequence[int]]
    patches: tuple[int, int] = (2, 2)
    """Rows and columns of the vision tower's patches, per image; four are a token."""

    def lists(self) -> list[Prompted]:
        """The micro batch with arbitrary tokens."""
        return [
            Prompted(
                {"input_ids": torch.ones(1, prompt, dtype=torch.long)},
                torch.arange(prompt).expand(3, -1),
                [[1] * length for length in own],
            )
            for prompt, own in zip(self.prompts, self.answers, strict=True)
        ]


def settings() -> list[Setting]:
    """The three settings, with lengths as they occur in data."""
    random = np.random.default_rng(0)

    def between(low: int, high: int, count: int) -> list[int]:
        return random.integers(low, high + 1, count).tolist()

    small, large = (34, 46), (80, 50)
    image = 34 * 46 // 4
    lists, pairs = between(image + 30, image + 60, 4), between(image + 30, image + 60, 8)
    return [
        Setting(
            "4 lists of 20 boxes (20 to 24 tokens), 391 image tokens",
            lists,
            [between(20, 24, 20) for _ in lists],
            small,
        ),
        Setting("8 pairs (40 to 240 tokens), 391 image tokens", pairs, [between(40, 240, 2) for _ in pairs], small),
        Setting("8 answers of 1,024 tokens, 1,000 image tokens", [1050], [[1024] * 8], large),
    ]


def model_of(layers: int) -> PreTrainedModel:
    """Qwen2.5-VL-3B with an adapter, without weights."""
    text = {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=VISION)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=FAMILY.lora_targets["language"])
        return get_peft_model(model, adapter).train()  # type: ignore[return-value]


def tower(setting: Setting, model: PreTrainedModel) -> float:
    """FLOPs of Qwen2.5-VL's vision tower and projector for all images, which have no backward pass."""
    number = setting.patches[0] * setting.patches[1]
    with torch.device("meta"):
        pixels = torch.empty(number, 3 * 2 * 14 * 14, dtype=torch.bfloat16)
        positions = torch.empty(number, 2, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model.visual(pixels, grid_thw=torch.tensor([[1, *setting.patches]]), position_ids=positions)
    return len(setting.prompts) * counter.get_total_flops()


def llava() -> PreTrainedModel:
    """LLaVA-1.5-7B with an adapter, without weights."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14,
    )  # fmt: skip
    text = LlamaConfig(vocab_size=32064, max_position_embeddings=4096)
    config = LlavaConfig(vision_config=vision, text_config=text)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=FAMILY.lora_targets["language"])
        return get_peft_model(model, adapter)  # type: ignore[return-value]


def llava_share(setting: Setting, model: PreTrainedModel) -> float:
    """The share of LLaVA's tower and projector in the needed FLOPs, with images of 576 tokens."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_image_features(torch.empty(1, 3, 336, 336, dtype=torch.bfloat16, device="meta"))
    seen = len(setting.prompts) * counter.get_total_flops()
    prompts = [prompt + 576 - setting.patches[0] * setting.patches[1] // 4 for prompt in setting.prompts]
    return seen / (seen + needed(replace(setting, prompts=prompts), model))


def needed(setting: Setting, model: PreTrainedModel) -> float:
    """FLOPs of the formula above."""
    config = model.config.get_text_config()
    tokens = sum(setting.prompts) + sum(length - 1 for own in setting.answers for length in own)
    total = 0.0
    for name, layer in model.named_modules():
        if "language_model" in name and hasattr(layer, "lora_A"):
            size = layer.in_features * layer.out_features
            rank = layer.r["default"]
            low = rank * (layer.in_features + layer.out_features)
            # forward, and the gradients of the input (twice through the adapter) and of the adapter
            total += 2 * tokens * (size + low) + 2 * tokens * (size + low) + 2 * tokens * low
            if ".layers.0." in name and name.endswith(("q_proj", "k_proj", "v_proj")):
                total -= 2 * tokens * (size + rank * layer.in_features)  # the embeddings are frozen
    targets = sum(map(sum, setting.answers))
    total += 2 * 2 * targets * config.hidden_size * config.vocab_size
    pairs = 0
    for prompt, own in zip(setting.prompts, setting.answers, strict=True):
        pairs += prompt * (prompt + 1) // 2
        pairs += sum((length - 1) * prompt + (length - 1) * length // 2 for length in own)
    return total + (2 + 4) * 2 * pairs * config.hidden_size * config.num_hidden_layers


def tiles(queries: torch.Tensor, keys: torch.Tensor, causal: bool, tile: tuple[int, int]) -> int:
    """Pairs of queries and keys in the tiles that the kernel computes."""
    found = 0
    for (q, q_end), (k, k_end) in zip(pairwise(queries.tolist()), pairwise(keys.tolist()), strict=True):
        for row in range(0, q_end - q, tile[0]):
            seen = min(k_end - k, row + tile[0]) if causal else k_end - k
            found += tile[0] * tile[1] * -(-seen // tile[1])
    return found


def _forward(query: Any, key: Any, value: Any, queries: Any, keys: Any, *rest: Any, **_: Any) -> int:
    causal = rest[3]
    return 2 * 2 * tiles(queries, keys, causal, TILES["forward"]) * query.shape[1] * query.shape[2]


def _backward(gradient: Any, query: Any, key: Any, value: Any, output: Any, sums: Any, *rest: Any, **_: Any) -> int:
    queries, keys, causal = rest[0], rest[1], rest[5]
    return 5 * 2 * tiles(queries, keys, causal, TILES["backward"]) * query.shape[1] * query.shape[2]


for formula in (_forward, _backward):
    formula._get_raw = True  # type: ignore[attr-defined]  # FlopCounterMode then passes tensors instead of shapes
FLASH = {torch.ops.aten._flash_attention_forward: _forward, torch.ops.aten._flash_attention_backward: _backward}


def executed(model: PreTrainedModel, batch: Packed) -> tuple[int, int]:
    """(FLOPs of the forward pass, of the backward pass)."""
    counter = FlopCounterMode(display=False, custom_mapping=FLASH)
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    with counter:
        loss = response_logps(model, batch).sum()
        forward = counter.get_total_flops()
        loss.backward()
    model.zero_grad()
    return forward, counter.get_total_flops() - forward


class _Whole(nullcontext[None]):
    """Counts the model as a whole: FlopCounterMode's hooks on modules do not allow a backward pass
    inside a forward pass, which the head needs."""

    parents = ("Global",)


class _Twice:
    """The head before: logits are computed again in the backward pass."""

    @staticmethod
    def apply(block: Callable[..., Any], *tensors: torch.Tensor) -> Any:
        return checkpoint(block, *tensors, use_reentrant=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=36)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    model, small = model_of(chosen.layers), llava()
    print("executed / needed, layout, forward + backward")
    for setting in settings():
        lists, need = setting.lists(), needed(setting, model)
        measured = {
            "one row without padding (CUDA)": executed(model, branched(lists, FAMILY)),
            "rows with a mask (CPU)": executed(model, packed(lists, FAMILY, 0)),
        }
        with mock.patch.object(shared_prefix, "_Rowwise", _Twice):
            measured["the same, logits computed twice"] = executed(model, packed(lists, FAMILY, 0))
        print(f"{setting.name}: needed {need / 1e12:.1f} TFLOP")
        seen = tower(setting, model.get_base_model())
        share, other = 100 * seen / (seen + need), 100 * llava_share(setting, small)
        print(f"  vision tower {seen / 1e12:.1f} TFLOP, {share:.1f} % of both; LLaVA-1.5-7B: {other:.1f} %")
        for name, (forward, backward) in measured.items():
            print(
                f"  {(forward + backward) / need:8.3f}   {name:32} {forward / 1e12:8.1f} + {backward / 1e12:.1f} TFLOP"
            )


if __name__ == "__main__":
    main()
