"""Adapters with random weights, which together cover all parts and variants, and how adapters differ."""

from collections.abc import Mapping

import torch
from peft import PeftModel
from perceptune.contracts.config import LoraBlock
from perceptune.models.adapters import new_adapter
from perceptune.models.families.family import Family
from torch import Tensor
from transformers import PreTrainedModel

PARTS = ("language", "projector", "vision")
EVERYTHING = LoraBlock(r=4, alpha=4, parts=PARTS, full=("projector",), use_rslora=True, use_dora=True)
TRAINED = {
    "llava": LoraBlock(r=4, alpha=8, parts=("language", "projector"), full=("projector",)),
    "llava_next": LoraBlock(r=4, alpha=8, parts=PARTS),
    "llava_onevision": LoraBlock(r=4, alpha=8, parts=PARTS, use_dora=True),
    "internvl": LoraBlock(r=4, alpha=4, parts=PARTS, full=("projector",), use_rslora=True),
    "qwen2_vl": EVERYTHING,
    "qwen2_5_vl": LoraBlock(r=4, alpha=8, parts=PARTS, use_dora=True),
    "qwen3_vl": LoraBlock(r=4, alpha=8, parts=PARTS),
}
"""What is trained, by family. PerPO's authors train what is trained here for LLaVA."""


def with_random_adapter(model: PreTrainedModel, family: Family) -> PeftModel:
    """The model with an adapter in which every number differs from that of the base model."""
    torch.manual_seed(0)
    return moved(new_adapter(model, TRAINED[family.name], family))


def moved(adapted: PeftModel, spread: float = 0.05) -> PeftModel:
    """The model with random numbers added to all trained ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(spread * torch.randn_like(weight))
    return adapted


def trained_weights(adapted: PeftModel) -> dict[str, Tensor]:
    """A copy of all weights that are trained, by name."""
    return {name: weight.detach().clone() for name, weight in adapted.named_parameters() if weight.requires_grad}


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The largest absolute difference between tensors of the same name."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)
