"""Small random-weight Qwen-VL models: Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.tiny_models.texts import HEAD_SIZE, PATCH_SIZE, QWEN_SPECIALS, byte_tokenizer, chatml, set_stop_tokens

TEMPLATE = chatml("<|vision_start|><|image_pad|><|vision_end|>")
WIDTH = 4 * HEAD_SIZE


def build_tiny_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `Qwen2VLForConditionalGeneration` with a byte-level tokenizer and
    processor.
    """
    vision = {
        "depth": 2,
        "embed_dim": 2 * HEAD_SIZE,
        "hidden_size": WIDTH,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": PATCH_SIZE,
    }
    processor = _processor(Qwen2VLProcessor, Qwen2VLVideoProcessor, PATCH_SIZE)
    return _build(Qwen2VLForConditionalGeneration, Qwen2VLConfig, vision, processor, folder, seed)


def build_tiny_qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `Qwen2_5_VLForConditionalGeneration` with a byte-level tokenizer and
    processor.
    """
    vision = {
        "depth": 2,
        "hidden_size": 2 * HEAD_SIZE,
        "intermediate_size": 4 * HEAD_SIZE,
        "out_hidden_size": WIDTH,
        "num_heads": 2,
        "patch_size": PATCH_SIZE,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    processor = _processor(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, PATCH_SIZE)
    return _build(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, vision, processor, folder, seed)


def build_tiny_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `Qwen3VLForConditionalGeneration`; two layers of its vision tower feed
    the first two decoder layers (DeepStack).
    """
    vision = {
        "depth": 3,
        "hidden_size": 2 * HEAD_SIZE,
        "intermediate_size": 4 * HEAD_SIZE,
        "out_hidden_size": WIDTH,
        "num_heads": 2,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    text = {"head_dim": HEAD_SIZE, "rope_parameters": _rope([6, 5, 5]) | {"mrope_interleaved": True}}
    processor = _processor(Qwen3VLProcessor, Qwen3VLVideoProcessor, 16)
    return _build(Qwen3VLForConditionalGeneration, Qwen3VLConfig, vision, processor, folder, seed, text)


def _processor(kind: Callable[..., ProcessorMixin], video: Callable[..., Any], patch: int) -> ProcessorMixin:
    """A processor that turns images into 4 to 16 tokens of 2 x 2 patches."""
    token = 2 * patch
    pixels = {"min_pixels": (2 * token) ** 2, "max_pixels": (4 * token) ** 2}
    return kind(
        image_processor=Qwen2VLImageProcessor(patch_size=patch, **pixels),
        tokenizer=byte_tokenizer(QWEN_SPECIALS, TEMPLATE),
        video_processor=video(patch_size=patch, **pixels),
        chat_template=TEMPLATE,
    )


def _build(
    model_class: Callable[..., PreTrainedModel],
    config_class: Callable[..., Any],
    vision: Mapping[str, Any],
    processor: ProcessorMixin,
    folder: Path,
    seed: int,
    text: Mapping[str, Any] | None = None,
) -> Path:
    tokenizer = processor.tokenizer
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in QWEN_SPECIALS}
    config = config_class(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "bos_token_id": special["<|endoftext|>"],
            "eos_token_id": special["<|im_end|>"],
            "rope_parameters": _rope([4, 6, 6]),
            **(text or {}),
        },
        vision_config={"spatial_merge_size": 2, **vision},
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = model_class(config)
    stops = [special["<|im_end|>"], special["<|endoftext|>"]]
    set_stop_tokens(model, bos=special["<|endoftext|>"], eos=stops, pad=special["<|endoftext|>"])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _rope(section: list[int]) -> dict[str, Any]:
    """M-RoPE: time, height and width share the 16 frequencies of a 32-dimensional head."""
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}
