"""Small models of every family and of DINOv2, built offline: tokenizers, chat templates, processors
and random weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from tests.tiny_models.llavas import (
    LARGE,
    SMALL,
    Widths,
    build_tiny_internvl,
    build_tiny_llava,
    build_tiny_llava_next,
    build_tiny_llava_onevision,
    llava_config,
    llava_processor,
    save_llava,
    save_weights,
)
from tests.tiny_models.others import OTHERS
from tests.tiny_models.qwens import build_tiny_qwen2_5_vl, build_tiny_qwen2_vl, build_tiny_qwen3_vl
from tests.tiny_models.texts import HEAD_SIZE, LLAVA_SPECIALS, PATCH_SIZE, llava_pieces, llava_tokenizer

__all__ = [
    "BUILDERS",
    "HEAD_SIZE",
    "LARGE",
    "LLAVA_SPECIALS",
    "OTHERS",
    "PATCH_SIZE",
    "SMALL",
    "Widths",
    "build_tiny_dinov2",
    "build_tiny_internvl",
    "build_tiny_llava",
    "build_tiny_llava_next",
    "build_tiny_llava_onevision",
    "build_tiny_qwen2_5_vl",
    "build_tiny_qwen2_vl",
    "build_tiny_qwen3_vl",
    "llava_config",
    "llava_pieces",
    "llava_processor",
    "llava_tokenizer",
    "save_llava",
    "save_weights",
    "stored_as",
]

BUILDERS: dict[str, Callable[[Path, int], Path]] = {
    "llava": build_tiny_llava,
    "llava_next": build_tiny_llava_next,
    "llava_onevision": build_tiny_llava_onevision,
    "qwen2_vl": build_tiny_qwen2_vl,
    "qwen2_5_vl": build_tiny_qwen2_5_vl,
    "qwen3_vl": build_tiny_qwen3_vl,
    "internvl": build_tiny_internvl,
}
"""Maps a family to the function (folder, seed) that writes a random-weight model of it."""


def build_tiny_dinov2(folder: Path, seed: int = 0, layers: int = 4) -> Path:
    """Write a random-weight `Dinov2Model` for 8 x 8 patches of 14 pixels, and its processor, to
    `folder`.
    """
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=112,
        patch_size=14,
        initializer_range=0.2,  # large, so that attention is far from uniform
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
    return folder


def stored_as(folder: Path, dtype: torch.dtype, shards: int = 1) -> Path:
    """Rewrites the weights of a model folder in `dtype`, in several files with an index if there is
    more than one."""
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    files = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": files})
    )
    return folder
