"""Sharding with FSDP2: every process keeps a share of each weight, and fetches a layer when it is needed.

accelerate does it; this module only chooses its settings and puts sharded tensors together again.
"""

from __future__ import annotations

import re
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback, TrainingArguments

from perceptune.models.placement import bare

DECODER_LAYER = re.compile(r"(?:.*\.)?(?:language_model|text_model)\.layers\.\d+")


def settings(model: PeftModel) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments` that shard the model.

    Only the decoder layers of the language model are fetched one by one. All processes must run them
    equally often, while a process may skip the vision tower: not all prompts have images. Checkpoints
    hold every process's share of the adapter and the optimiser's state; the default is the whole model.
    """
    layers = {type(module).__name__ for name, module in model.named_modules() if DECODER_LAYER.fullmatch(name)}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "state_dict_type": "SHARDED_STATE_DICT",
            "transformer_layer_cls_to_wrap": sorted(layers),
        },
    }


def keep_dtypes(arguments: TrainingArguments) -> None:
    """Leaves mixed precision to autocast, as without sharding.

    accelerate would otherwise cast the adapter and sum up its gradients in 16 bits.
    """
    arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy()


def enable_on_cpu(arguments: TrainingArguments, state: AcceleratorState) -> None:
    """Enables FSDP as accelerate does on GPUs; it ignores the setting in CPU processes."""
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)


class WholeHead(TrainerCallback):
    """Keeps the language-model head whole once it was fetched.

    It runs block by block (`LOGITS_AT_ONCE`), and would be fetched again for each block of the backward
    pass. Processes have different numbers of blocks, so they would wait for each other forever.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        head = bare(kwargs["model"]).get_output_embeddings()
        assert isinstance(head, FSDPModule)  # accelerate shards it on its own, or with the embedding
        head.set_reshard_after_backward(False)


def whole_adapter(model: nn.Module) -> dict[str, Tensor] | None:
    """The adapter's weights, on the CPU; None if the model is not sharded. All processes must call it."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not any(isinstance(weight, DTensor) for weight in trained.values()):
        return None
    return {name: whole(weight.detach()).cpu() for name, weight in trained.items()}


def own_share(tensor: Tensor) -> Tensor:
    """This process's share of a tensor; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_like(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """A tensor, which all processes have, on the parameter's device and sharded as it is."""
    moved = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return moved
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements)
