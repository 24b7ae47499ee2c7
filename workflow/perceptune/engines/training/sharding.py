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

from perceptune.models.placement import bare, language_model

DECODER_LAYER = re.compile(r"(?:.*\.)?(?:language_model|text_model)\.layers\.\d+")


def settings(model: PeftModel) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments` that shard the model.

    Only the decoder layers of the language model are fetched one by one. All processes must run them
    equally often, while a process may skip the vision tower: not all prompts have images. `InStep`
    sees to the backward pass. Checkpoints hold every process's share of the adapter and of the
    optimiser's state; the default is the whole model.
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


class InStep(TrainerCallback):
    """Makes all processes fetch and reduce the same weights, or they would wait for each other forever.

    The head stays whole once it was fetched: it runs block by block (`LOGITS_AT_ONCE`), in different
    numbers of blocks, and would be fetched again for each block of the backward pass. Where parts before
    the decoder layers are trained, a process whose prompts have no images does not use their weights: it
    reduces zeros, and its backward pass still goes through all decoder layers.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model: Any = kwargs["model"]
        model.set_reduce_scatter_unused_params(True)
        language_model(model).get_input_embeddings().register_forward_hook(_with_gradient)
        head = bare(model).get_output_embeddings()
        assert isinstance(head, FSDPModule)  # accelerate shards it on its own, or with the embedding
        head.set_reshard_after_backward(False)


def _with_gradient(embedding: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.requires_grad_()


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
