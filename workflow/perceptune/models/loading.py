"""Loads models and processors, and writes models with an adapter merged in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.models.adapters import in_float32
from perceptune.models.coordinates import pixel_limits
from perceptune.models.merging import merge_weights

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
    adapted = in_float32(PeftModel.from_pretrained(model, str(folder), is_trainable=trainable))
    if adapted.peft_config["default"].modules_to_save:  # loaded in the model's dtype, which rounds
        adapted.load_adapter(str(folder), "default", is_trainable=trainable)
    return adapted


def merged_model(model: ModelBlock, adapter: Path, folder: Path) -> None:
    """Writes a complete model folder with the adapter merged into the weights, see `merge_weights`.

    Leaves no folder if it fails.
    """
    ignored = shutil.ignore_patterns(*WEIGHTS, ".*")
    try:
        # `copyfile`, because the files of a shared model may be read-only
        shutil.copytree(model.path, folder, ignore=ignored, copy_function=shutil.copyfile, dirs_exist_ok=True)
        if model.pixels:
            load_processor(model).save_pretrained(folder)
        merge_weights(Path(model.path), adapter, folder, model.dtype, model.trust_remote_code)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
