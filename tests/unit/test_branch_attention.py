"""Which models attend by branches, and the kernel's calls on the meta device, which checks shapes and
counts FLOPs.
"""

from typing import Any

import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.engines.training import branch_attention
from perceptune.engines.training.branch_attention import (
    NAME,
    PLAIN,
    Branches,
    Spans,
    _Attention,
    _Reference,
    plain,
)
from perceptune.models.loading import outline
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AttentionInterface,
    AutoConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def states(device: str, length: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Query, key and value of a row, (L, heads, d)."""
    torch.manual_seed(seed)
    made = (torch.randn(length, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    return tuple(state.to(device).requires_grad_() for state in made)


def seen(prompts: list[int], answers: list[list[int]]) -> torch.Tensor:
    """The mask of a row, (L, L), from a plain loop."""
    owners = [(group, None) for group, length in enumerate(prompts) for _ in range(length)]
    owners += [(g, n) for g, own in enumerate(answers) for n, length in enumerate(own) for _ in range(length)]
    mask = torch.zeros(len(owners), len(owners), dtype=torch.bool)
    for query, (group, answer) in enumerate(owners):
        for key in range(query + 1):
            mask[query, key] = owners[key] in ((group, answer), (group, None))
    return mask


@pytest.mark.parametrize(
    ("prompts", "answers"), [([5], [[3]]), ([7, 2], [[1, 4, 2], [6]]), ([1, 9, 3], [[1], [1, 1], [5, 1]])]
)
def test_branches_equal_attention_with_a_mask(prompts: list[int], answers: list[list[int]]) -> None:
    branches = Branches.of(prompts, answers)
    mask = seen(prompts, answers)
    query, key, value = states("cpu", len(mask))
    found = _Attention.apply(query, key, value, branches, 0.3)
    by_head = [state.transpose(0, 1)[None] for state in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*by_head, attn_mask=mask, scale=0.3, enable_gqa=True)
    expected = expected[0].transpose(0, 1)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    slopes = [torch.autograd.grad((one * weights).sum(), (query, key, value)) for one in (found, expected)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_the_kernel_gets_what_each_sequence_needs() -> None:
    """On the meta device: FLOPs of the pairs of tokens that each call is given."""
    prompts, answers = [7, 2], [[1, 4, 2], [6]]
    query, key, value = (state.to(torch.bfloat16) for state in states("meta", 22))
    pairs = 7 * 7 + 2 * 2 + 1 + 16 + 4 + 36 + 7 * 7 + 6 * 2  # causal squares are counted in full
    with FlopCounterMode(display=False) as counter:
        found = _Attention.apply(query, key, value, Branches.of(prompts, answers), 0.3)
    assert found.shape == (22, HEADS, WIDTH)
    assert counter.get_total_flops() == 2 * 2 * pairs * HEADS * WIDTH
    with FlopCounterMode(display=False) as counter:
        slopes = torch.autograd.grad(found.sum(), (query, key, value))
    assert [slope.shape for slope in slopes] == [query.shape, key.shape, value.shape]
    assert counter.get_total_flops() == 5 * 2 * pairs * HEADS * WIDTH


def test_single_queries_do_not_change_the_kernels_layout() -> None:
    assert Spans.of([1, 1], [5, 3], causal=False)[2:] == (2, 5, False)


def test_models_with_other_attention_are_left_alone() -> None:
    small = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert plain(LlamaConfig(**small))
    assert plain(Qwen2Config(**small, sliding_window=4096, use_sliding_window=False))
    assert plain(MistralConfig(**small, sliding_window=None))
    refused = {
        "sliding window": MistralConfig(**small, sliding_window=4096),
        "sliding window in some layers": Qwen2Config(**small, sliding_window=4096, use_sliding_window=True),
        "dropout": LlamaConfig(**small, attention_dropout=0.1),
        "large heads": LlamaConfig(**small, head_dim=512),
        "odd heads": LlamaConfig(**small, head_dim=20),
        "soft-capping": Gemma2Config(),
        "image tokens that see later ones": Gemma3TextConfig(),
        "sinks": GptOssConfig(),
    }
    assert [name for name, config in refused.items() if plain(config)] == []


def test_a_model_that_is_sharded_later_uses_the_kernel_of_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then, its weights are on the CPU."""
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(branch_attention, "works", lambda device, *shape: device == torch.device("cuda:1"))
    block = ModelBlock(path="resources/tiny-llava/model", family="llava")
    model = outline(block).to(torch.bfloat16)
    assert not branch_attention.suits(model)
    assert branch_attention.suits(model, torch.device("cuda:1"))


def test_names_of_plain_models_exist() -> None:
    assert {AutoConfig.for_model(name).model_type for name in PLAIN} == set(PLAIN)
    assert NAME in AttentionInterface._global_mapping


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"forward": lambda *_: 1 / torch.tensor([1.0, 2.0]).item()}, "a Tensor with 2 elements cannot be converted"),
        ({"forward": lambda *given: tuple(2 * one for one in _Reference.forward(*given))}, "differs from float64 by "),
        (
            {"backward": lambda *given: tuple(2 * one for one in _Reference.backward(*given))},
            "differs from float64 by ",
        ),
    ],
    ids=["right", "fails", "wrong values", "wrong gradients"],
)
def test_a_kernel_that_does_not_work_is_not_used(
    change: dict[str, Any], problem: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the place of a GPU: bfloat16 on this CPU, whose kernel is changed."""
    kernel = type("Kernel", (_Reference,), {name: staticmethod(function) for name, function in change.items()})
    monkeypatch.setattr(
        branch_attention, "kernel_of", lambda states: _Reference if states.dtype == torch.float64 else kernel
    )
    branch_attention.works.cache_clear()
    assert branch_attention.works(torch.device("cpu"), torch.bfloat16, HEADS, HEADS, WIDTH) == (problem is None)
    branch_attention.works.cache_clear()
    said = capsys.readouterr().err
    assert (problem or "") in said
    assert bool(said) == bool(problem)
