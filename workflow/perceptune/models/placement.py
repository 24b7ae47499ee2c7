"""Unwraps models, and moves tensors to them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel


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
