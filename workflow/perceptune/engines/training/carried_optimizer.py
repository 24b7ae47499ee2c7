"""The optimiser's state, carried over from one round to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback

from perceptune.contracts.errors import UserError
from perceptune.engines.training import sharding

ADAMW = ("exp_avg", "exp_avg_sq", "step")
"""AdamW's state per parameter."""


class Carried(TrainerCallback):
    """Restores the optimiser's state of the previous round, once the parameters are on their devices."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:  # a checkpoint has its own state
            load_optimizer(kwargs["optimizer"], kwargs["model"], self.file)


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """AdamW's state as `<parameter>.<quantity>`, on the CPU. All processes must call it."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for quantity in ADAMW if parameter in optimizer.state else ():
            value = sharding.whole(optimizer.state[parameter][quantity].detach())
            tensors[f"{name}.{quantity}"] = value.cpu().contiguous()
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, file: Path) -> None:
    """Restores AdamW's state.

    Raises `UserError` if the file belongs to other parameters.
    """
    tensors = load_file(file)
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if tensors and {f"{name}.{quantity}" for name in names for quantity in ADAMW} != tensors.keys():
        raise UserError(f"`{file}`: optimiser state of another adapter", "`optimizer: reset` starts without one")
    for name, parameter in names.items() if tensors else ():
        state = {quantity: tensors[f"{name}.{quantity}"] for quantity in ADAMW}
        # AdamW keeps `step` on the CPU
        optimizer.state[parameter] = {
            k: v if k == "step" else sharding.split_like(v, parameter) for k, v in state.items()
        }
