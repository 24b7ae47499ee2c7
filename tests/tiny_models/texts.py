"""Sizes, tokenizers and chat templates that the small models share, built offline."""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.data.shapes import COLOURS, LETTERS, SHAPES, plural
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

PATCH_SIZE = 14
HEAD_SIZE = 32
"""The smallest head size that vLLM's CPU attention supports (32, 64, 80, 96, 112, 128, ...)."""
LLAVA_SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
CHATML_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_SPECIALS = (
    *CHATML_SPECIALS,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
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
CHATML_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- 'IMAGE' -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}}
"""
"""`IMAGE` stands for the family's image placeholder, see `chatml`."""


def llava_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole question words, single characters, and one token per two-decimal
    coordinate with its comma or bracket.

    The chat template writes `<s>`; the tokenizer adds no special tokens. An answer starts with its
    space, as in Llama.
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
    """The vocabulary in token id order with Unigram scores that prefer a word piece over its
    characters.
    """
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


def chatml(image: str) -> str:
    """The chat template of Qwen's language models, with `image` as the image placeholder."""
    return CHATML_TEMPLATE.replace("IMAGE", image)


def byte_tokenizer(
    specials: Sequence[str], template: str, named: dict[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges (one token per byte), plus special tokens; those in `named` are
    also attributes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(specials),
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        **({"extra_special_tokens": named} if named else {}),
    )


def set_stop_tokens(model: PreTrainedModel, bos: int, eos: list[int], pad: int) -> None:
    """Set greedy generation that stops at any token of `eos`."""
    generation = model.generation_config
    generation.bos_token_id, generation.eos_token_id, generation.pad_token_id = bos, eos, pad
    generation.do_sample = False
