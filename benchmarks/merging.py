"""Merging an adapter into the weights of a model, against copying the model's files.

    python benchmarks/merging.py [--quick]

The model has Qwen2.5-VL's architecture with random weights in bfloat16, in files of 256 MB. Both
include the imports of torch and transformers in their peak memory, but not in their time. Seconds
of CPU time are printed too: they hardly depend on what else the machine does.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from before_now import Row, main
from peft import LoraConfig, get_peft_model
from perceptune.contracts.config import ModelBlock
from perceptune.contracts.plugins import load
from perceptune.models.loading import merged_model
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

FAMILY = "qwen2_5_vl"


def write_model(folder: Path, layers: int) -> None:
    """A model of 15 million parameters per layer and 100 million more, with an adapter of rank 16."""
    torch.manual_seed(0)
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 24, 24]}
    text |= {
        "num_hidden_layers": layers,
        "vocab_size": 32_000,
        "rope_parameters": rope,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    vision = {"depth": 8, "hidden_size": 512, "intermediate_size": 2048, "out_hidden_size": 1024, "num_heads": 8}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder / "model", max_shard_size="256MB")
    lora = LoraConfig(r=16, target_modules=load("family", FAMILY).lora_targets["language"], init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder / "adapter")


def merge(folder: Path, layers: int) -> Mapping[str, Any]:
    since = time.process_time()
    model = ModelBlock(path=str(folder / "model"), family=FAMILY, dtype="bfloat16")
    merged_model(model, folder / "adapter", folder / "merged")
    return written(folder / "merged", since)


def copy(folder: Path, layers: int) -> Mapping[str, Any]:
    since = time.process_time()
    shutil.copytree(folder / "model", folder / "copied")
    return written(folder / "copied", since)


def written(folder: Path, since: float) -> Mapping[str, Any]:
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"GB": round(size / 1e9, 2), "CPU s": round(time.process_time() - since, 1)}


SIZE, QUICK = {"layers": 28}, {"layers": 2}
ROWS = (
    Row("merge an adapter", write_model, merge, SIZE, QUICK, target="time of a copy, memory of one layer"),
    Row("copy the files", write_model, copy, SIZE, QUICK, before=False),
)

if __name__ == "__main__":
    main(ROWS)
