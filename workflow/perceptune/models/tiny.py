"""Small models of both families, built offline: their tokenizers, chat templates, processors and random weights.

`resources/tiny-llava` trains the model that `llava_config(LARGE)` describes; tests use the random-weight builders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    BitImageProcessor,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from perceptune.core.shapes import COLOURS, IMAGE_SIZE, LETTERS, SHAPES, plural
from perceptune.models.llava import Llava
from perceptune.models.loading import save_weights

PATCH_SIZE = 14
HEAD_SIZE = 32
"""The smallest head size that vLLM's CPU attention supports (32, 64, 80, 96, 112, 128, ...)."""
LLAVA_SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LLAVA_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- (' ' if not loop.first and message['role'] != 'user' else '') + message['role'].upper() + ': ' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}
{{- '<image>\n' -}}
{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endfor -%}
{%- endif -%}
{{- eos_token if message['role'] == 'assistant' -}}
{%- endfor -%}
{{- ' ASSISTANT:' if add_generation_prompt -}}
"""
QWEN_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}}
"""


@dataclass(frozen=True)
class Widths:
    """Sizes of a LLaVA model; the vision tower's last layer is never used (LLaVA reads the one before)."""

    vision: int
    vision_layers: int
    text: int
    text_inner: int
    text_layers: int


SMALL = Widths(vision=64, vision_layers=2, text=64, text_inner=128, text_layers=2)
LARGE = Widths(vision=128, vision_layers=5, text=192, text_inner=384, text_layers=4)


def build_tiny_llava(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `LlavaForConditionalGeneration` with tokenizer and processor into `folder`."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(llava_config(SMALL))
    return save_llava(model, folder)


def save_llava(model: LlavaForConditionalGeneration, folder: Path) -> Path:
    """Write the model, its processor, its tokenizer and a greedy generation config into `folder`."""
    _set_stop_tokens(model, bos=LLAVA_SPECIALS.index("<s>"), eos=[LLAVA_SPECIALS.index("</s>")], pad=3)
    save_weights(model, folder, Llava().stored_name)
    llava_processor().save_pretrained(folder)
    return folder


def llava_config(widths: Widths) -> LlavaConfig:
    """LLaVA-1.5 for 112-pixel images: 64 image tokens, features of the tower's last layer but one, no class token."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=widths.vision,
            intermediate_size=4 * widths.vision,
            num_hidden_layers=widths.vision_layers,
            num_attention_heads=widths.vision // HEAD_SIZE,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=widths.vision,
        ),
        text_config=LlamaConfig(
            vocab_size=len(llava_pieces()),
            hidden_size=widths.text,
            intermediate_size=widths.text_inner,
            num_hidden_layers=widths.text_layers,
            num_attention_heads=widths.text // HEAD_SIZE,
            num_key_value_heads=widths.text // HEAD_SIZE,
            head_dim=HEAD_SIZE,
            max_position_embeddings=2048,
            bos_token_id=LLAVA_SPECIALS.index("<s>"),
            eos_token_id=LLAVA_SPECIALS.index("</s>"),
            pad_token_id=LLAVA_SPECIALS.index("<pad>"),
            tie_word_embeddings=False,
        ),
        image_token_index=LLAVA_SPECIALS.index("<image>"),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_processor() -> LlavaProcessor:
    """Processor that pads to a square as LLaVA-1.5 does, and resizes to 112 pixels."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image_processor = LlavaImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=size, do_pad=True)
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=llava_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        num_additional_image_tokens=1,
    )


def llava_tokenizer() -> PreTrainedTokenizerFast:
    """Whole question words, single characters, one token per two-decimal coordinate with its comma or bracket.

    The chat template writes `<s>`, the tokenizer adds nothing; an answer starts with its space, as in Llama.
    """
    pieces = llava_pieces()
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        chat_template=LLAVA_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def llava_pieces() -> list[tuple[str, float]]:
    """The vocabulary in token id order with Unigram scores: one word piece always beats its characters."""
    words = ["locate", "read", "is", "how", "the", "text", "there", "many", "are", "an", "yes", "no"]
    words += [*COLOURS, *SHAPES, *map(plural, SHAPES)]
    words += ["USER:", "ASSISTANT:"]
    numbers = [f"{number / 100:.2f}" for number in range(101)]
    characters = [chr(code) for code in range(33, 127)] + ["\n", "▁"]
    whole = [mark + word for word in words for mark in ("", "▁")]
    starts = [f"▁{character}" for character in LETTERS + "0123456789["]
    coordinates = [
        f"{before}{number}{after}" for before, after in (("", ","), ("▁", ","), ("▁", "]")) for number in numbers
    ]
    pieces = [(special, 0.0) for special in LLAVA_SPECIALS]
    pieces += [(f"<0x{byte:02X}>", -100.0) for byte in range(256)]
    pieces += [(character, -10.0) for character in characters]
    pieces += [(piece, -5.0) for piece in [*starts, *whole, *coordinates]]
    return pieces


def build_tiny_qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `Qwen2_5_VLForConditionalGeneration` with a byte-level tokenizer and processor."""
    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in QWEN_SPECIALS}
    model = Qwen2_5_VLForConditionalGeneration(_qwen_config(len(tokenizer), special))
    stops = [special["<|im_end|>"], special["<|endoftext|>"]]
    _set_stop_tokens(model, bos=special["<|endoftext|>"], eos=stops, pad=special["<|endoftext|>"])
    model.save_pretrained(folder)
    pixels = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=QWEN_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def build_tiny_dinov2(folder: Path, seed: int = 0, layers: int = 4) -> Path:
    """Write a random-weight `Dinov2Model` for images of 8 x 8 patches of 14 pixels, with its processor, into `folder`."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=112,
        patch_size=14,
        initializer_range=0.2,  # large, so that attention is far from uniform
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
    return folder


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges (a token per byte) and Qwen's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN_SPECIALS),
        chat_template=QWEN_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def _qwen_config(vocabulary: int, special: dict[str, int]) -> Qwen2_5_VLConfig:
    width = 4 * HEAD_SIZE
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "bos_token_id": special["<|endoftext|>"],
            "eos_token_id": special["<|im_end|>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 2 * HEAD_SIZE,
            "intermediate_size": 4 * HEAD_SIZE,
            "num_heads": 2,
            "out_hidden_size": width,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def _set_stop_tokens(
    model: LlavaForConditionalGeneration | Qwen2_5_VLForConditionalGeneration, bos: int, eos: list[int], pad: int
) -> None:
    generation = model.generation_config
    generation.bos_token_id, generation.eos_token_id, generation.pad_token_id = bos, eos, pad
    generation.do_sample = False
