"""Attention of answers that branch off their prompts: no padding, no mask, no arithmetic for pairs
of tokens that do not see each other.

The row is `[p1 | p2 | ... | r11 | r12 | ... | r21 | ...]`: all prompts of a batch, then their
answers in the same order. Every prompt and every answer attends to itself, causally. All answers of
a prompt attend to the prompt, as one block of queries. Each of the two parts is one call of
FlashAttention's kernel for sequences of different lengths, and their results are merged by
log-sum-exp, as in ring attention (arXiv:2310.01889). `docs/decisions/0013-branch-attention.md` compares the alternatives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from perceptune.models.placement import language_model

NAME = "perceptune_branches"
PLAIN = ("llama", "mistral", "qwen2", "qwen2_5_vl_text", "qwen2_vl_text", "qwen3", "qwen3_vl_text")
"""Types of language models whose attention is causal softmax attention and nothing else: no
soft-capping, no sinks, no image tokens that see later ones."""
LARGEST_HEAD = 192
"""Larger heads have no backward pass on smaller GPUs. FlashAttention also needs a multiple of 8."""
TOLERANCE = 0.03
"""Rounding of bfloat16 in attention and its gradients, with room; a wrong kernel is off by about 1."""


class Spans(NamedTuple):
    """Sequences of queries, and the keys that each of them sees."""

    queries: Tensor
    """Cumulative lengths, (n + 1,) int32, starting with 0."""
    keys: Tensor
    """Cumulative lengths of the keys, (n + 1,) int32."""
    longest_query: int
    longest_key: int
    causal: bool

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], causal: bool) -> Spans:
        """From the length of each sequence."""
        ends = [torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys)]
        # not below 2: for single queries the kernel changes to its decoding layout
        return cls(ends[0], ends[1], max(2, *queries), max(keys), causal)

    def on(self, device: torch.device) -> Spans:
        """With the lengths where the kernel reads them: on its GPU."""
        if device.type != "cuda":
            return self
        queries, keys = (ends.to(device, non_blocking=True) for ends in (self.queries, self.keys))
        return self._replace(queries=queries, keys=keys)

    def pinned(self) -> Spans:
        """With the lengths in page-locked memory."""
        return self._replace(queries=self.queries.pin_memory(), keys=self.keys.pin_memory())


@dataclass(frozen=True)
class Branches:
    """Where the prompts and answers of a row are."""

    prompts: int
    """Tokens of all prompts; the answers start there."""
    own: Spans
    """Every prompt and every answer with itself."""
    shared: Spans
    """The answers of every prompt with the prompt."""

    @classmethod
    def of(cls, prompts: Sequence[int], answers: Sequence[Sequence[int]]) -> Branches:
        """From the length of each prompt, and of each of its answers."""
        own = [*prompts, *(length for one in answers for length in one)]
        shared = Spans.of([sum(one) for one in answers], prompts, causal=False)
        return cls(sum(prompts), Spans.of(own, own, causal=True), shared)

    def on(self, device: torch.device) -> Branches:
        """For states on `device`."""
        return replace(self, own=self.own.on(device), shared=self.shared.on(device))

    def pinned(self) -> Branches:
        """In page-locked memory."""
        return replace(self, own=self.own.pinned(), shared=self.shared.pinned())


def suits(model: PreTrainedModel, device: torch.device | None = None) -> bool:
    """Whether the kernel runs this model: 16-bit numbers on an NVIDIA GPU since Ampere, plain
    attention, and a kernel that `works`. Other models need rows with a mask.

    `device` is where it will run if it is not there yet, as before sharding.
    """
    device = device or model.device
    if not _supported(model, device):
        return False
    config = language_model(model).config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    return works(device, model.dtype, heads, key_heads, _width(config))


def _supported(model: PreTrainedModel, device: torch.device) -> bool:
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and model.dtype in (torch.bfloat16, torch.float16)
        and plain(language_model(model).config)
    )


def plain(config: PreTrainedConfig) -> bool:
    """Whether a language model's attention can be computed branch by branch."""
    head = _width(config)
    return (
        config.model_type in PLAIN
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "attention_dropout", 0)
        and head % 8 == 0
        and head <= LARGEST_HEAD
    )


def _width(config: PreTrainedConfig) -> int:
    """Numbers per head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


@cache
@torch.inference_mode(False)
@torch.enable_grad()
def works(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> bool:
    """Whether attention and its gradients on this device agree with plain float64 arithmetic.

    They are compared once per process, on a small random row. If they do not agree, for example
    because another version of PyTorch has changed its operators, this says so. Raises what a lack of
    memory raises.
    """
    branches = Branches.of([70, 9], [[1, 40, 130], [5]])
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(n, 255, width, generator=generator).to(dtype) for n in (heads, key_heads, key_heads, heads)]

    def passes(place: torch.device, kind: torch.dtype, branches: Branches) -> list[Tensor]:
        # transposed, as transformers' layers pass them
        *states, weights = (state.to(place, kind).transpose(0, 1) for state in made)
        states = [state.requires_grad_() for state in states]
        output = _Attention.apply(*states, branches, width**-0.5)  # type: ignore[no-untyped-call]
        return [output.detach(), *torch.autograd.grad(output, states, weights)]

    try:
        found = passes(device, dtype, branches.on(device))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # not a fault of the kernel
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        reason, _, _ = str(error).partition("\n")
        problem = f"fails: {reason}"
    else:
        exact = passes(torch.device("cpu"), torch.float64, branches)
        wrong = max(
            float((one.cpu().double() - other).abs().max() / other.abs().max())
            for one, other in zip(found, exact, strict=True)
        )
        if wrong <= TOLERANCE:  # false for NaN
            return True
        problem = f"differs from float64 by {wrong:.2g} of the largest number (expected at most {TOLERANCE})"
    print(f"PyTorch's FlashAttention {problem}; using rows with padding instead", file=sys.stderr, flush=True)
    return False


def use(model: PreTrainedModel) -> None:
    """Lets the language model compute branches. Without them it attends as before (SDPA), and so
    does the vision tower.

    The setting stays: gradient checkpointing computes a layer again in the backward pass.
    """
    language = language_model(model)
    if language.config._attn_implementation != NAME:
        language.set_attn_implementation(NAME)


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    branches: Branches | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function called by transformers, with states (1, heads, L, d)."""
    if branches is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    # under mixed precision, rotated queries and keys can be float32
    states = (state[0].transpose(0, 1).to(value.dtype) for state in (query, key, value))
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    output: Tensor = _Attention.apply(*states, branches, scale)  # type: ignore[no-untyped-call]
    return output[None], None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _Attention(torch.autograd.Function):
    """Both parts and their merger.

    The backward pass of each part takes the merged output and log-sum-exp: these give its share of
    the softmax, exp(score - log-sum-exp). torch's context parallelism relies on the same.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, branches: Branches, scale: float) -> Tensor:
        """(L, heads, d), from queries of that shape and (L, key heads, d)."""
        start, attend = branches.prompts, kernel_of(query).forward
        output, sums = attend(query, key, value, branches.own, scale)
        more, more_sums = attend(query[start:], key[:start], value[:start], branches.shared, scale)
        merged = torch.logaddexp(sums[:, start:], more_sums)
        share = (more_sums - merged).exp().t()[..., None]
        output[start:] = output[start:].to(share.dtype).lerp(more.to(share.dtype), share)
        sums[:, start:] = merged
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.branches, ctx.scale = branches, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, output, sums = ctx.saved_tensors
        branches, scale, gradient = ctx.branches, ctx.scale, gradient.contiguous()
        start, slopes = branches.prompts, kernel_of(query).backward
        of_query, of_key, of_value = slopes(gradient, query, key, value, output, sums, branches.own, scale)
        sums = sums[:, start:].contiguous()
        more = slopes(
            gradient[start:], query[start:], key[:start], value[:start], output[start:], sums, branches.shared, scale
        )
        of_query[start:] += more[0]
        of_key[:start] += more[1]
        of_value[:start] += more[2]
        return of_query, of_key, of_value, None, None


class _Flash:
    """FlashAttention. On the meta device, it has shapes and FLOPs."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> tuple[Tensor, Tensor]:
        """Output like `query`, and log-sum-exp (heads, L) float32."""
        output, sums, *_ = torch.ops.aten._flash_attention_forward(
            query, key, value, spans.queries, spans.keys, spans.longest_query, spans.longest_key,
            0.0, spans.causal, False, scale=scale,
        )  # fmt: skip
        return output, sums

    @staticmethod
    def backward(
        gradient: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        sums: Tensor,
        spans: Spans,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value."""
        # the random state of dropout, which is not used
        random = torch.zeros(2, dtype=torch.uint64, device=query.device), torch.empty(0, device=query.device)
        return torch.ops.aten._flash_attention_backward(
            gradient, query, key, value, output, sums, spans.queries, spans.keys, spans.longest_query,
            spans.longest_key, 0.0, spans.causal, *random, scale=scale,
        )  # fmt: skip


class _Reference:
    """The same in plain float64 arithmetic on any device."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> tuple[Tensor, Tensor]:
        """Output like `query`, and log-sum-exp (heads, L) float64."""
        output, sums = torch.empty_like(query), query.new_empty(query.shape[1::-1], dtype=torch.float64)
        for queries, keys in _slices(spans):
            q, k, v = _by_head(query[queries], key[keys], value[keys])
            scores = _scores(q, k, spans.causal, scale)
            here = scores.logsumexp(dim=2)
            sums[:, queries] = here
            output[queries] = ((scores - here[..., None]).exp() @ v).transpose(0, 1).to(output.dtype)
        return output, sums

    @staticmethod
    def backward(
        gradient: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        sums: Tensor,
        spans: Spans,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value."""
        found = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        mean = (gradient.double() * output.double()).sum(dim=2).t()
        for queries, keys in _slices(spans):
            q, k, v = _by_head(query[queries], key[keys], value[keys])
            slope = gradient[queries].transpose(0, 1).double()
            shares = (_scores(q, k, spans.causal, scale) - sums[:, queries, None]).exp()
            of_scores = shares * (slope @ v.mT - mean[:, queries, None]) * scale
            pieces = of_scores @ k, of_scores.mT @ q, shares.mT @ slope
            for whole, where, piece in zip(found, (queries, keys, keys), pieces, strict=True):
                # key heads serve several query heads each
                summed = piece.unflatten(0, (whole.shape[1], -1)).sum(dim=1)
                whole[where] = summed.transpose(0, 1).to(whole.dtype)
        return found


def kernel_of(states: Tensor) -> type[_Flash] | type[_Reference]:
    """The kernel for the device of these states."""
    return _Flash if states.device.type in ("cuda", "meta") else _Reference


def _slices(spans: Spans) -> Iterator[tuple[slice, slice]]:
    """The queries and keys of every sequence."""
    for (q, q_end), (k, k_end) in zip(pairwise(spans.queries.tolist()), pairwise(spans.keys.tolist()), strict=True):
        yield slice(q, q_end), slice(k, k_end)


def _by_head(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """(heads, length, d) each, with key heads repeated for the query heads that they serve."""
    heads = query.shape[1]
    return [s.transpose(0, 1).double().repeat_interleave(heads // s.shape[1], dim=0) for s in (query, key, value)]


def _scores(query: Tensor, key: Tensor, causal: bool, scale: float) -> Tensor:
    scores = (query @ key.mT) * scale
    if causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return scores
