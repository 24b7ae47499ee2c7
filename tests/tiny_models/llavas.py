"""Small random-weight models with LLaVA's architecture: LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision and
InternVL.

`resources/tiny-llava` trains the model that `llava_config(LARGE)` describes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from perceptune.core.data.shapes import IMAGE_SIZE
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.tiny_models.texts import (
    CHATML_SPECIALS,
    HEAD_SIZE,
    LLAVA_SPECIALS,
    LLAVA_TEMPLATE,
    PATCH_SIZE,
    byte_tokenizer,
    chatml,
    llava_pieces,
    llava_tokenizer,
    set_stop_tokens,
)

SIZE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
INTERNVL_NAMES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


@dataclass(frozen=True)
class Widths:
    """Sizes of a LLaVA model; LLaVA reads the vision tower's second-to-last layer and never uses
    the last.
    """

    vision: int
    vision_layers: int
    text: int
    text_inner: int
    text_layers: int


SMALL = Widths(vision=64, vision_layers=2, text=64, text_inner=128, text_layers=2)
LARGE = Widths(vision=128, vision_layers=5, text=192, text_inner=384, text_layers=4)


def build_tiny_llava(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `LlavaForConditionalGeneration` with tokenizer and processor to
    `folder`.
    """
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(llava_config(SMALL))
    return save_llava(model, folder)


def save_llava(model: LlavaForConditionalGeneration, folder: Path) -> Path:
    """Write the model, processor, tokenizer and a greedy generation config to `folder`."""
    return _save(model, llava_processor(), folder)


def llava_config(widths: Widths) -> LlavaConfig:
    """LLaVA-1.5 for 112-pixel images: 64 image tokens, features of the second-to-last layer, no
    class token.
    """
    return LlavaConfig(
        vision_config=_clip(widths),
        text_config=_llama(widths),
        image_token_index=LLAVA_SPECIALS.index("<image>"),
        image_seq_length=PATCHES,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_processor() -> LlavaProcessor:
    """A processor that pads images to a square, as in LLaVA-1.5, and resizes them to 112 pixels."""
    return LlavaProcessor(
        image_processor=LlavaImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=SIZE, do_pad=True),
        tokenizer=llava_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        num_additional_image_tokens=1,
    )


def build_tiny_llava_next(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `LlavaNextForConditionalGeneration`: an overview of 64 tokens and two
    to four tiles per image.
    """
    grid = [[IMAGE_SIZE * rows, IMAGE_SIZE * columns] for rows, columns in ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))]
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=_clip(SMALL),
            text_config=_llama(SMALL),
            image_token_index=LLAVA_SPECIALS.index("<image>"),
            image_grid_pinpoints=grid,
            image_seq_length=PATCHES,
        )
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": IMAGE_SIZE}, crop_size=SIZE, image_grid_pinpoints=grid
        ),
        tokenizer=llava_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        num_additional_image_tokens=1,
    )
    return _save(model, processor, folder)


def build_tiny_llava_onevision(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `LlavaOnevisionForConditionalGeneration`: an overview of 64 tokens and
    up to twelve tiles per image.

    As in the published models, the features of more than nine tiles are downsampled.
    """
    tokenizer = byte_tokenizer((*CHATML_SPECIALS, "<image>", "<video>"), chatml("<image>\n"))
    grid = [[IMAGE_SIZE * rows, IMAGE_SIZE * columns] for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 4))]
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(
                hidden_size=2 * HEAD_SIZE,
                intermediate_size=4 * HEAD_SIZE,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=IMAGE_SIZE,
                patch_size=PATCH_SIZE,
                vision_use_head=False,
            ),
            text_config=_qwen2(tokenizer),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
            image_grid_pinpoints=grid,
        )
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=grid),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=SIZE),
        num_image_tokens=PATCHES,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )
    return _save(model, processor, folder)


def build_tiny_internvl(folder: Path, seed: int = 0) -> Path:
    """Write a random-weight `InternVLForConditionalGeneration`: up to six tiles of 16 tokens per
    image, and an overview.
    """
    specials = (*CHATML_SPECIALS, *INTERNVL_NAMES.values())
    tokenizer = byte_tokenizer(specials, chatml("<IMG_CONTEXT>\n"), INTERNVL_NAMES)
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config={
                "hidden_size": 2 * HEAD_SIZE,
                "intermediate_size": 4 * HEAD_SIZE,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
            },
            text_config=_qwen2(tokenizer),
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
            image_seq_length=PATCHES // 4,
            tie_word_embeddings=False,
        )
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SIZE, max_patches=6),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=SIZE),
        image_seq_length=PATCHES // 4,
        chat_template=tokenizer.chat_template,
    )
    return _save(model, processor, folder, tower="")


def _clip(widths: Widths) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=widths.vision,
        intermediate_size=4 * widths.vision,
        num_hidden_layers=widths.vision_layers,
        num_attention_heads=widths.vision // HEAD_SIZE,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=widths.vision,
    )


def _llama(widths: Widths) -> LlamaConfig:
    return LlamaConfig(
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
    )


def _qwen2(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=4 * HEAD_SIZE,
        intermediate_size=8 * HEAD_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )


def _save(model: PreTrainedModel, processor: ProcessorMixin, folder: Path, tower: str = "vision_model.") -> Path:
    tokenizer = processor.tokenizer
    first = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    set_stop_tokens(model, bos=first, eos=[tokenizer.eos_token_id], pad=tokenizer.pad_token_id)
    save_weights(model, folder, tower)
    processor.save_pretrained(folder)
    return folder


def save_weights(model: PreTrainedModel, folder: Path, tower: str = "vision_model.") -> None:
    """Write the model with the names of published checkpoints, which vLLM loads.

    For new models, transformers 5 omits `tower`, a level of the CLIP and SigLIP towers.
    """
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        tensors = {name.replace("vision_tower.", f"vision_tower.{tower}"): t for name, t in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
