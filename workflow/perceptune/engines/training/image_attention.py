"""Attention of Qwen's vision towers in one call of FlashAttention's kernel per layer.

Their patches attend within an image, or within windows of it. Without the package `flash-attn`,
transformers calls SDPA for each window of each image, and in every layer waits for the GPU to learn
their lengths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from perceptune.engines.training import branch_attention
from perceptune.engines.training.branch_attention import Spans

NAME = "perceptune_flash_images"
"""transformers passes lengths to functions with `flash` in their name."""
TOWERS = ("qwen2_vl_vision", "qwen2_5_vl_vision", "qwen3_vl_vision")


def use(model: PreTrainedModel) -> None:
    """Lets the vision tower of a model that attends by branches use the same kernel, if it works for its
    heads."""
    tower = getattr(model.model, "visual", None)
    if tower is None or tower.config.model_type not in TOWERS or tower.config._attn_implementation == NAME:
        return
    attention = next(module for module in tower.modules() if hasattr(module, "head_dim"))
    heads, width = attention.num_heads, attention.head_dim
    if width % 8 == 0 and branch_attention.works(tower.device, tower.dtype, heads, heads, width):
        # not `set_attn_implementation`, which would look for the package `flash-attn`
        tower.config._attn_implementation = NAME


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function called by transformers, with states (1, heads, L, d)."""
    states = (state[0].transpose(0, 1).to(value.dtype) for state in (query, key, value))
    # not below 2, as in `Spans.of`
    spans = Spans(cu_seq_lens_q, cu_seq_lens_q, max(2, max_length_q), max_length_q, False)
    output: Tensor = _Attention.apply(*states, spans, scaling)  # type: ignore[no-untyped-call]
    return output[None], None


AttentionInterface.register(NAME, _forward)


class _Attention(torch.autograd.Function):
    """Every sequence with itself."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> Tensor:
        """(L, heads, d), from states of that shape."""
        output, sums = branch_attention.kernel_of(query).forward(query, key, value, spans, scale)
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.spans, ctx.scale = spans, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, output, sums = ctx.saved_tensors
        slopes = branch_attention.kernel_of(query).backward
        return *slopes(gradient.contiguous(), query, key, value, output, sums, ctx.spans, ctx.scale), None, None
