"""Small random-weight models of architectures that have no family of their own, for `family: auto`.

The weights are larger than at the start of a training, so that differences in attention show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLImageProcessor,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SiglipImageProcessor,
)

from tests.tiny_models.llavas import save_weights
from tests.tiny_models.texts import HEAD_SIZE, PATCH_SIZE, QWEN_SPECIALS, byte_tokenizer, chatml, set_stop_tokens

WIDTH = 2 * HEAD_SIZE
RANGE = 0.2
IMAGE_SIZE = 4 * PATCH_SIZE
BOS = "<bos>"
PLAIN_ENDS = ("<|endoftext|>", "<|im_end|>")


def turns(image: str, user: str, between: str, assistant: str, bos: str = BOS) -> str:
    """A chat template: `user` and its content, `between`, `assistant` and its content, `between`."""
    return (
        f"{{{{- '{bos}' -}}}}"
        "{%- for message in messages -%}"
        f"{{{{- '{user}' if message['role'] == 'user' else '{assistant}' -}}}}"
        "{%- for part in message['content'] -%}"
        f"{{{{- '{image}' if part['type'] == 'image' else part['text'] -}}}}"
        "{%- endfor -%}"
        f"{{{{- '{between}' -}}}}"
        "{%- endfor -%}"
        f"{{{{- '{assistant}' if add_generation_prompt -}}}}"
    )


def build_tiny_gemma3(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight Gemma 3: images of four tokens that see each other, and a decoder layer
    with a sliding window before one without.
    """
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    template = turns("<start_of_image>", "<start_of_turn>user\\n", "<end_of_turn>\\n", "<start_of_turn>model\\n")
    specials = (*PLAIN_ENDS, BOS, "<start_of_turn>", "<end_of_turn>", *named.values())
    tokenizer = _tokenizer(specials, template, named, ["\n" * count for count in range(1, 5)])
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=_text(tokenizer)
        | {
            "head_dim": HEAD_SIZE,
            "query_pre_attn_scalar": HEAD_SIZE,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
        vision_config=_siglip(),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer,
        chat_template=template,
        image_seq_length=4,
    )
    return _save(Gemma3ForConditionalGeneration, config, processor, folder, seed, "<end_of_turn>", "vision_model.")


def build_tiny_paligemma(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight PaliGemma, in which all tokens of a prompt see each other. A chat template
    is added: the published ones have none.
    """
    template = turns("<image>", "", "", "", bos="")
    tokenizer = _tokenizer((*PLAIN_ENDS, BOS, "<image>"), template, {"image_token": "<image>"}, ["\n"])
    image = SiglipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    image.image_seq_length = (IMAGE_SIZE // PATCH_SIZE) ** 2
    processor = PaliGemmaProcessor(image, tokenizer, chat_template=template)
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma", **_text(tokenizer), "head_dim": HEAD_SIZE, "tie_word_embeddings": True},
        vision_config=_siglip() | {"projection_dim": WIDTH, "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return _save(PaliGemmaForConditionalGeneration, config, processor, folder, seed, "<|im_end|>", "vision_model.")


def build_tiny_idefics3(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight Idefics3: tiles of four tokens, with tokens for their places, and an
    overview.
    """
    places = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    template = turns("<image>", "User: ", "<end_of_utterance>\\n", "Assistant: ")
    template = template.replace("'Assistant: ' if add", "'Assistant:' if add")
    tokenizer = _tokenizer((*PLAIN_ENDS, BOS, *named.values(), *places), template, named)
    image = Idefics3ImageProcessor(
        size={"longest_edge": 3 * IMAGE_SIZE}, max_image_size={"longest_edge": IMAGE_SIZE}, do_image_splitting=True
    )
    processor = Idefics3Processor(image, tokenizer, chat_template=template, image_seq_len=4)
    config = Idefics3Config(
        text_config={"model_type": "llama", **_text(tokenizer)},
        vision_config=_siglip(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    return _save(Idefics3ForConditionalGeneration, config, processor, folder, seed, "<end_of_utterance>")


def build_tiny_mistral3(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight Mistral 3: a Pixtral tower for images of any size, with a token at the end
    of each row.
    """
    template = turns("[IMG]", "[INST]", "[/INST]", "", bos=BOS).replace(
        "{{- '[/INST]' -}}", "{{- '[/INST]' if message['role'] == 'user' else eos_token -}}"
    )
    specials = (*PLAIN_ENDS, BOS, "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    tokenizer = _tokenizer(specials, template)
    image = PixtralImageProcessor(size={"longest_edge": 2 * IMAGE_SIZE}, patch_size=PATCH_SIZE)
    processor = PixtralProcessor(image, tokenizer, patch_size=PATCH_SIZE, spatial_merge_size=2, chat_template=template)
    config = Mistral3Config(
        text_config={"model_type": "mistral", **_text(tokenizer), "head_dim": HEAD_SIZE, "sliding_window": None},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 2 * IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "head_dim": HEAD_SIZE,
            "initializer_range": RANGE,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return _save(Mistral3ForConditionalGeneration, config, processor, folder, seed, "<|im_end|>")


def build_tiny_glm4v(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight GLM-4.1V: one grid per image, and positions on three axes."""
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    marks = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")
    template = turns(
        "<|begin_of_image|><|image|><|end_of_image|>", "<|user|>\\n", "", "<|assistant|>\\n", bos="[gMASK]<sop>"
    )
    specials = (*PLAIN_ENDS, "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", *marks, *named.values())
    tokenizer = _tokenizer(specials, template, named)
    ids = tokenizer.convert_tokens_to_ids
    pixels = {"size": {"shortest_edge": (4 * PATCH_SIZE) ** 2 * 2, "longest_edge": (8 * PATCH_SIZE) ** 2 * 2}}
    processor = Glm4vProcessor(
        Glm4vImageProcessor(patch_size=PATCH_SIZE, **pixels),
        tokenizer,
        Glm4vVideoProcessor(patch_size=PATCH_SIZE, **pixels),
        chat_template=template,
    )
    config = Glm4vConfig(
        text_config=_text(tokenizer)
        | {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 3, 3],
            }
        },
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "num_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": 2,
            "out_hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "initializer_range": RANGE,
        },
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
    )
    return _save(Glm4vForConditionalGeneration, config, processor, folder, seed, "<|user|>")


def build_tiny_qwen3_vl_moe(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight Qwen3-VL whose tokens go through two of four experts."""
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    tokenizer = byte_tokenizer(QWEN_SPECIALS, template)
    ids = tokenizer.convert_tokens_to_ids
    pixels = {"min_pixels": 64**2, "max_pixels": 128**2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, **pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(patch_size=16, **pixels),
        chat_template=template,
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLMoeConfig(
        text_config=_text(tokenizer)
        | {
            "head_dim": HEAD_SIZE,
            "num_experts": 4,
            "norm_topk_prob": True,  # as in published configs; vLLM reads it
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 3 * HEAD_SIZE,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": 3,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "out_hidden_size": WIDTH,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": RANGE,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    _save(Qwen3VLMoeForConditionalGeneration, config, processor, folder, seed, "<|im_end|>")
    file = folder / "model.safetensors"
    # published checkpoints have inputs before outputs, and transformers reads either order
    tensors = {n: t.transpose(1, 2).contiguous() if ".experts." in n else t for n, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def _tokenizer(
    specials: Sequence[str], template: str, named: Mapping[str, str] | None = None, words: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(specials, template, dict(named or {}))
    tokenizer.add_tokens(list(specials), special_tokens=True)  # named ones replace the others
    tokenizer.add_tokens(list(words))
    if BOS in specials:
        tokenizer.bos_token = BOS
    return tokenizer


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "initializer_range": RANGE,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _siglip() -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "initializer_range": RANGE,
    }


def _save(
    model_class: Callable[..., PreTrainedModel],
    config: Any,
    processor: ProcessorMixin,
    folder: Path,
    seed: int,
    turn_end: str,
    tower: str = "",
) -> Path:
    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    model = model_class(config)
    first = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    stops = sorted({tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(turn_end)})
    set_stop_tokens(model, bos=first, eos=stops, pad=tokenizer.pad_token_id)
    save_weights(model, folder, tower)
    processor.save_pretrained(folder)
    return folder


OTHERS: dict[str, Callable[[Path, int], Path]] = {
    "gemma3": build_tiny_gemma3,
    "glm4v": build_tiny_glm4v,
    "idefics3": build_tiny_idefics3,
    "mistral3": build_tiny_mistral3,
    "paligemma": build_tiny_paligemma,
    "qwen3_vl_moe": build_tiny_qwen3_vl_moe,
}
"""Architecture to the function (folder, seed) that writes a random-weight model of it."""
