"""Loading models and processors, and writing an adapter into the weights."""

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
    """The processor of a model folder; `UserError` when it cannot be loaded."""
    try:
        loaded = AutoProcessor.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"processor of model folder `{model.path}` cannot be loaded: {error}") from error
    for key, value in pixel_limits(model).items():  # after loading: the processor of videos would take them, too
        setattr(loaded.image_processor, key, type(getattr(loaded.image_processor, key))(**value))
    return loaded


def load_model(model: ModelBlock, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model in the block's number format (or `dtype`), from safetensors, on this process's GPU if there is one."""
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
    """The model with the adapter of a folder, in the number formats that a new one has: float32 on a model of 16 bits."""
    return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def merged_model(model: ModelBlock, adapter: Path, folder: Path) -> None:
    """Writes a complete model folder with the adapter added to the weights; sums in float32, stored in the block's format."""
    base = load_model(model, torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model.path, folder, ignore=shutil.ignore_patterns(*WEIGHTS), dirs_exist_ok=True)
    if model.pixels:
        load_processor(model).save_pretrained(folder)
    save_weights(merged.to(getattr(torch, model.dtype)), folder, family_of(model).stored_name)


def save_weights(model: PreTrainedModel, folder: Path, stored_name: Callable[[str], str]) -> None:
    """Saves the model as safetensors under the names that vLLM loads; transformers loads them as well."""
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        save_file({stored_name(k): v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    for file in folder.glob("*.safetensors.index.json"):
        index = json.loads(file.read_text())
        index["weight_map"] = {stored_name(k): v for k, v in index["weight_map"].items()}
        file.write_text(json.dumps(index, indent=2))
