"""Attention of a few query rows, without ever materialising a full attention matrix.

The forward pass uses PyTorch's fused attention, whose memory grows linearly with the sequence. In
addition, the requested rows are recomputed from the same queries and keys: (heads, rows, length)
numbers per layer, which are reduced at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from perceptune.models.placement import bare, language_model, on_device

NAME = "perceptune_rows"


@dataclass
class _Capture:
    """What the running forward pass captures."""

    rows: Tensor
    """Query positions, (R,)."""
    image: Tensor
    """Positions of the tokens that make the map, (n,)."""
    whole: Tensor
    """Positions of all image tokens, (m,)."""
    gradient_layer: int | None
    maps: dict[int, Tensor] = field(default_factory=dict)
    """Layer to the first row's attention on the image, mean over heads, (n,)."""
    shares: dict[int, Tensor] = field(default_factory=dict)
    """Layer to the share of attention on image tokens, mean over heads and rows."""
    leaf: Tensor | None = None
    """The first row's attention in the gradient layer, (heads, length)."""

    def take(self, layer: int, weights: Tensor) -> None:
        self.maps[layer] = weights[:, 0, self.image].mean(dim=0)
        self.shares[layer] = weights[..., self.whole].sum(dim=-1).mean()


_CAPTURE: ContextVar[_Capture | None] = ContextVar("capture", default=None)


def _forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention function called by transformers: fused, plus the requested rows."""
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    capture = _CAPTURE.get()
    if capture is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        groups = int(getattr(module, "num_key_value_groups", 1))
        keys, values = (repeat_kv(states, groups)[0] for states in (key, value))
        weights = attention_rows(query[0], keys, capture.rows, scaling)
        with torch.no_grad():
            capture.take(layer, weights)
        if layer == capture.gradient_layer:
            capture.leaf = weights[:, 0].detach().requires_grad_()
            mixed = torch.einsum("hl,hld->hd", capture.leaf.to(values.dtype), values)
            output = output.clone()
            output[0, capture.rows[0]] = mixed
    return output, None


def attention_rows(query: Tensor, key: Tensor, rows: Tensor, scaling: float) -> Tensor:
    """Causal softmax attention of some query rows.

    (heads, R, length) float32, from query and key of shape (heads, length, d).
    """
    scores = (query[:, rows] @ key.transpose(1, 2)).float() * scaling
    ahead = torch.arange(key.shape[1], device=key.device)[None] > rows[:, None]
    return scores.masked_fill(ahead, float("-inf")).softmax(dim=-1)


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


@dataclass(frozen=True)
class Looked:
    """Attention of one prompt: float32 tensors on the CPU."""

    maps: Tensor
    """(layers, n): attention on each token of the map from the position that predicts the first
    answer token, mean over heads.
    """
    shares: Tensor
    """(layers,): share of attention on image tokens, mean over heads and answer positions."""
    gradient: Tensor | None
    """(n,): one layer's attention x ReLU(gradient of the top first token's log-prob), mean over
    heads.
    """


@contextmanager
def watching(model: PreTrainedModel) -> Iterator[None]:
    """Makes the language model report its attention while the block runs."""
    language = language_model(model)
    before = language.config._attn_implementation
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    language.set_attn_implementation(NAME)
    try:
        yield
    finally:
        language.set_attn_implementation(before)
        for parameter in trained:
            parameter.requires_grad_(True)


def look(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    answer_from: int,
    image: Tensor,
    gradient_layer: int | None = None,
    whole: Tensor | None = None,
) -> Looked:
    """One forward pass over one prompt (batch of 1, no padding), inside `watching(model)`.

    `answer_from` is the position of the prompt's last token; the tokens after it in `input_ids` are
    the answer. `image` has the positions of the tokens that make the map, `whole` those of all
    image tokens if there are more; both may be on any device. `gradient_layer` adds a backward pass
    through the layers above it. Raises `ValueError` if the model does not have that layer.
    """
    layers = int(language_model(model).config.num_hidden_layers)
    if gradient_layer is not None and gradient_layer >= layers:
        raise ValueError(f"layer {gradient_layer}, expected one of 0 to {layers - 1}")
    inputs = on_device(inputs, bare(model))
    length, device = inputs["input_ids"].shape[1], inputs["input_ids"].device
    rows = torch.arange(answer_from, max(length - 1, answer_from + 1), device=device)
    whole = image if whole is None else whole
    capture = _Capture(rows, image.to(device), whole.to(device), gradient_layer)
    token = _CAPTURE.set(capture)
    try:
        with torch.set_grad_enabled(gradient_layer is not None):
            logits = model(**inputs, logits_to_keep=rows[:1], use_cache=False).logits[0, 0].float()
            gradient = None if gradient_layer is None else _weighted(capture, logits)
    finally:
        _CAPTURE.reset(token)
    maps = torch.stack([capture.maps[layer] for layer in range(layers)])
    shares = torch.stack([capture.shares[layer] for layer in range(layers)])
    return Looked(maps.cpu(), shares.cpu(), None if gradient is None else gradient.cpu())


def _weighted(capture: _Capture, logits: Tensor) -> Tensor:
    """Attention x ReLU(gradient) of the top token's log-prob, on the image, mean over heads."""
    assert capture.leaf is not None
    (gradient,) = torch.autograd.grad(logits.log_softmax(dim=-1).max(), capture.leaf)
    weighted = capture.leaf.detach() * gradient.clamp(min=0)
    return weighted[:, capture.image].mean(dim=0)
