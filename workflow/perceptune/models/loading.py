"""Loads models and processors, and writes models with an adapter merged in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import is_bitsandbytes_available

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.progress import Waiting
from perceptune.models.adapters import in_float32
from perceptune.models.coordinates import pixel_limits
from perceptune.models.merging import merge_weights
from perceptune.models.placement import own_device

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pth", "*.pt")
OTHER_LAYERS = r"(?!.*\b(?:language_model|text_model)\.layers\.)"
"""Matches the names of all layers but the language model's decoder layers."""
INSTALL = "uv pip install bitsandbytes"
"""Hint: it is in none of the environments, because it serves GPUs only."""


def load_processor(model: ModelBlock) -> ProcessorMixin:
    """The processor of a model folder.

    Raises `UserError` if it cannot be loaded.
    """
    try:
        loaded = AutoProcessor.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"processor of model folder `{model.path}` cannot be loaded: {error}") from error
    # after loading: otherwise the video processor would use them as well
    for key, value in pixel_limits(model).items():
        setattr(loaded.image_processor, key, type(getattr(loaded.image_processor, key))(**value))
    return loaded


def load_model(
    model: ModelBlock,
    dtype: torch.dtype | None = None,
    quantisation: Literal["none", "nf4"] = "none",
    sharded: bool = False,
) -> PreTrainedModel:
    """The model in the block's dtype (or `dtype`), frozen, on this process's GPU if there is one.

    `sharded` leaves it on the CPU, from where FSDP moves each process's share to its GPU. Raises
    `UserError` if it cannot be loaded, or not be quantised here, or the GPU not be used.
    """
    place, options = own_device(), four_bits(model.dtype) if quantisation == "nf4" else {}
    with Waiting(f"loading {model.path}"):
        try:
            loaded = AutoModelForImageTextToText.from_pretrained(
                model.path,
                dtype=dtype or getattr(torch, model.dtype),
                attn_implementation="sdpa",
                trust_remote_code=model.trust_remote_code,
                use_safetensors=True,
                **options,
            )
        except (OSError, ValueError) as error:
            raise UserError(f"model folder `{model.path}` cannot be loaded: {error}") from error
        if not options and not sharded:
            loaded = loaded.to(place)
    # float32 is float32: by default, the first layer of a vision tower, a convolution, would use TF32 on GPUs
    torch.backends.cudnn.allow_tf32 = False
    # torch multiplies by weights that require gradients with other kernels, whose rounding differs in
    # float16: without this, a model with a new adapter would not be the base model bit by bit
    return loaded.requires_grad_(False)


def outline(model: ModelBlock) -> PreTrainedModel:
    """The model without weights, for what its config alone determines, such as position ids.

    Raises `UserError` if it cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"model folder `{model.path}` cannot be loaded: {error}") from error


def four_bits(dtype: str) -> dict[str, Any]:
    """Options of `from_pretrained` for a language model whose decoder layers have 4-bit weights.

    NF4 with double quantisation, as in QLoRA (arXiv:2305.14314). The vision tower, the projector, the
    embeddings and the head keep `dtype`, in which all products are computed. Raises `UserError`
    without an NVIDIA GPU, or without bitsandbytes.
    """
    if not torch.cuda.is_available():
        raise UserError("`quantisation: nf4` needs an NVIDIA GPU, and this process sees none")
    if not is_bitsandbytes_available():
        raise UserError("`quantisation: nf4` needs bitsandbytes, which is not installed", INSTALL)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=[OTHER_LAYERS],
    )
    return {"quantization_config": config, "device_map": {"": own_device()}}


def load_trained(model: PreTrainedModel, folder: Path, trainable: bool = True) -> PeftModel:
    """The model with the adapter in `folder`, in a new adapter's dtype: float32 for 16-bit
    models.
    """
    device = str(model.device)
    adapted = in_float32(PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, torch_device=device))
    if adapted.peft_config["default"].modules_to_save:  # loaded in the model's dtype, which rounds
        adapted.load_adapter(str(folder), "default", is_trainable=trainable, torch_device=device)
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
        with Waiting(f"merging {adapter} into {model.path}"):
            merge_weights(Path(model.path), adapter, folder, model.dtype, model.trust_remote_code)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
