"""Loads models and processors, and merges adapters into weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.models.coordinates import pixel_limits
from perceptune.models.families.family import family_of

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pth", "*.pt")


def load_processor(model: ModelBlock) -> ProcessorMixin:
    """The processor of a model folder.

    Raises `UserError` if it cannot be loaded.
    """
    try:
        loaded = AutoProcessor.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"processor of model folder `{model.path}` cannot be loaded: {error}") from error
    # after loading: otherwise the video processor would use them as well
    for key, value in pixel_limits(model).items():
        setattr(loaded.image_processor, key, type(getattr(loaded.image_processor, key))(**value))
    return loaded


def load_model(model: ModelBlock, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model in the block's dtype (or `dtype`), on this process's GPU if there is one.

    Raises `UserError` if it cannot be loaded.
    """
    try:
        loaded = AutoModelForImageTextToText.from_pretrained(
            model.path,
            dtype=dtype or getattr(torch, model.dtype),
            attn_implementation="sdpa",
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model folder `{model.path}` cannot be loaded: {error}") from error
    if torch.cuda.is_available():
        loaded = loaded.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return loaded


def load_trained(model: PreTrainedModel, folder: Path, trainable: bool = True) -> PeftModel:
    """The model with the adapter in `folder`, in a new adapter's dtype: float32 for 16-bit
    models.
    """
    return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def merged_model(model: ModelBlock, adapter: Path, folder: Path) -> None:
    """Writes a complete model folder with the adapter merged into the weights.

    Sums are computed in float32 and stored in the block's dtype.
    """
    base = load_model(model, torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model.path, folder, ignore=shutil.ignore_patterns(*WEIGHTS), dirs_exist_ok=True)
    if model.pixels:
        load_processor(model).save_pretrained(folder)
    save_weights(merged.to(getattr(torch, model.dtype)), folder, family_of(model).stored_name)


def save_weights(model: PreTrainedModel, folder: Path, stored_name: Callable[[str], str]) -> None:
    """Saves the model as safetensors under names that both vLLM and transformers load."""
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        save_file({stored_name(k): v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    for file in folder.glob("*.safetensors.index.json"):
        index = json.loads(file.read_text())
        index["weight_map"] = {stored_name(k): v for k, v in index["weight_map"].items()}
        file.write_text(json.dumps(index, indent=2))
