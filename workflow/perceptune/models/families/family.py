"""Declaration of a model family: prompts, images, positions, answers, LoRA targets.

Declarations are read without torch, transformers, numpy and Pillow; methods import what they need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from perceptune.contracts.plugins import load

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import PreTrainedModel, ProcessorMixin

    from perceptune.contracts.config import ModelBlock, Part
    from perceptune.core.answers.boxes import Frame

Messages = Sequence[Mapping[str, Any]]
PLACEHOLDERS = ("image", "video", "audio")
"""What a processor's `<kind>_token` attributes stand for."""
SPECIAL = "special"
"""The kind of all other tokens that a text must not contain."""
LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The linear layers of a language model, for `Family.lora_targets`."""


class Family(ABC):
    """One family; an instance holds no model."""

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    """Values of `model_type` in the `config.json` of its checkpoints; none: any."""
    frame: ClassVar[Frame | None]
    """The coordinate format of boxes that the family was trained with; None: the config must name it."""
    resizes_by_pixels: ClassVar[bool] = False
    """Whether its processor resizes images to a number of pixels, limited by a block's `pixels`."""
    squares_images: ClassVar[bool] = False
    """Whether images are made square first, as a model block's `image_fit` says."""
    places_tokens: ClassVar[bool] = True
    """Whether it knows which part of an image a token shows; attention maps need that."""
    probed: ClassVar[bool] = False
    """Whether a probe must find out on a model's weights if the family understands it."""
    markup: ClassVar[tuple[str, ...]] = ()
    """Special tokens that are part of questions and answers, such as the marks around a box."""
    lora_targets: ClassVar[Mapping[Part, str]] = {"language": LANGUAGE}
    """Part of the model (`language`, `projector`, `vision`) to a regular expression for the names of
    its linear layers, in the model as in published checkpoints (`LANGUAGE` needs `language_model.` in
    front where checkpoints omit it)."""

    def unused_layers(self, settings: Mapping[str, Any]) -> str | None:
        """Regular expression for layers that no output depends on, so that training them is void; None
        if there are none. `settings` is the model's `config.json`.
        """
        return None

    def of(self, model: ModelBlock) -> Family:
        """The family configured by a model block; itself if the block has no settings for it."""
        return self

    def check(self, processor: ProcessorMixin) -> None:  # noqa: B027
        """Raises `UserError` if the processor is not understood."""

    def prompt_text(self, processor: ProcessorMixin, messages: Messages) -> str:
        """The chat prompt up to the start of the answer, with one placeholder per image.

        Raises `ValueError` if a user's text contains a reserved token.
        """
        reserved = self.reserved(processor)
        structured = [{"role": m["role"], "content": [self._item(c, reserved) for c in m["content"]]} for m in messages]
        return str(processor.apply_chat_template(structured, add_generation_prompt=True, tokenize=False))

    @staticmethod
    def _item(item: Mapping[str, Any], reserved: Mapping[str, str]) -> dict[str, str]:
        if item["type"] == "image":
            return {"type": "image"}
        check_text(item["text"], reserved, "the question")
        return {"type": "text", "text": item["text"]}

    def reserved(self, processor: ProcessorMixin) -> dict[str, str]:
        """The tokens that questions and answers must not contain as text, each with its kind.

        These are the placeholders, for which there would be no pixels, and the tokenizer's special
        tokens, such as `</s>`, `<|im_end|>` or `<|vision_start|>`: it reads them as the structure of
        the chat even where the data has them as plain text. The family's `markup` is not reserved,
        nor are added tokens that are not special, such as Qwen3's `<think>`.
        """
        tokenizer = processor.tokenizer
        added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        special = dict.fromkeys([*added, *tokenizer.all_special_tokens], SPECIAL)
        placeholders = self.placeholders(processor)
        return placeholders | {t: k for t, k in special.items() if t not in self.markup and t not in placeholders}

    def escaped(self, processor: ProcessorMixin, messages: Messages) -> list[dict[str, Any]]:
        """The messages with a space inside every reserved token in their texts: `< |im_end|>`."""
        reserved = self.reserved(processor)

        def plain(text: str) -> str:
            for token in reserved:
                text = text.replace(token, f"{token[0]} {token[1:]}")
            return text

        return [
            {**m, "content": [{**c, "text": plain(c["text"])} if c["type"] == "text" else c for c in m["content"]]}
            for m in messages
        ]

    def placeholder(self, processor: ProcessorMixin) -> str:
        """The token that stands for an image in the prompt."""
        return str(processor.image_token)

    def placeholders(self, processor: ProcessorMixin) -> dict[str, str]:
        """The tokens that stand for images, videos or audio in the prompt, each with its kind.

        The processor replaces them, even where the data has them as plain text.
        """
        named = {kind: getattr(processor, f"{kind}_token", None) for kind in PLACEHOLDERS}
        return {str(token): kind for kind, token in named.items() if token}

    def placeholder_ids(self, processor: ProcessorMixin) -> list[int]:
        """Token ids of the placeholders in the vocabulary.

        They are never sampled: their pixels would be missing.
        """
        tokenizer = processor.tokenizer
        ids = {tokenizer.convert_tokens_to_ids(token) for token in self.placeholders(processor)}
        return sorted(ids - {None, tokenizer.unk_token_id})

    def prepare_image(self, image: Image.Image, processor: ProcessorMixin) -> Image.Image:
        """An RGB image as passed to the model's own processor, in sampling and training alike."""
        return image

    def prefix(
        self, processor: ProcessorMixin, messages: Messages, images: list[Image.Image]
    ) -> dict[str, torch.Tensor]:
        """The processor's tensors for one prompt: `input_ids` (1, P), pixels, the family's
        extras.
        """
        prepared = [self.prepare_image(image, processor) for image in images]
        text = self.prompt_text(processor, messages)
        special = self._adds_special_tokens(processor, text)
        encoded = processor(images=prepared or None, text=[text], return_tensors="pt", add_special_tokens=special)
        return dict(encoded)

    def prompt_ids(self, processor: ProcessorMixin, messages: Messages) -> list[int]:
        """The prompt's token ids with one placeholder per image, which vLLM expands as the
        processor does in `prefix`.
        """
        text = self.prompt_text(processor, messages)
        special = self._adds_special_tokens(processor, text)
        return list(processor.tokenizer(text, add_special_tokens=special)["input_ids"])

    def prompt_length(self, processor: ProcessorMixin, tokens: Sequence[int], images: Sequence[Image.Image]) -> int:
        """Length of a prompt from `prompt_ids`, expanded for these prepared images, in tokens."""
        if not images:
            return len(tokens)
        sizes = [(image.height, image.width) for image in images]
        # the method that vLLM and transformers' server use
        counted = processor._get_num_multimodal_tokens(image_sizes=sizes)
        return len(tokens) + sum(counted.num_image_tokens) - len(images)

    def image_tokens(self, processor: ProcessorMixin, images: Sequence[Image.Image]) -> int:
        """Number of tokens that these images add to their placeholders.

        Raises `ValueError` for images that the processor refuses, such as very long ones.
        """
        return self.prompt_length(processor, (), [self.prepare_image(image, processor) for image in images])

    @staticmethod
    def _adds_special_tokens(processor: ProcessorMixin, text: str) -> bool:
        """Whether the tokenizer must add its first token: some templates contain it already."""
        first = processor.tokenizer.bos_token
        return first is None or not text.startswith(first)

    @abstractmethod
    def positions(self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Position ids of the prefix, shape (axes, P), int64.

        Responses continue from their maximum + 1 on every axis.
        """

    @abstractmethod
    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """Rows and columns of each image's tokens in the prompt, which are in row-major order."""

    def image_positions(
        self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of the first image's tokens: (those of its grid, all), shape (n,) each."""
        placeholder = processor.tokenizer.convert_tokens_to_ids(self.placeholder(processor))
        rows, columns = self.grids(processor, prefix)[0]
        seen = (prefix["input_ids"][0] == placeholder).nonzero()[: rows * columns, 0]
        return seen, seen

    @abstractmethod
    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The region that the grid covers: x1, y1, x2, y2 in pixels, beyond the image for padding.

        `size` is (width, height).
        """

    def with_answer(
        self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor], answer: Sequence[int]
    ) -> tuple[dict[str, torch.Tensor], int]:
        """(inputs of a forward pass over prompt and answer, position of the prompt's last
        token).
        """
        import torch

        positions = self.positions(model, prefix)
        after = positions.max() + 1 + torch.arange(len(answer)).expand(positions.shape[0], -1)
        inputs = {
            "input_ids": torch.cat([prefix["input_ids"], torch.tensor([list(answer)], dtype=torch.long)], dim=1),
            "position_ids": self.shaped_positions(torch.cat([positions, after], dim=1)[:, None]),
            **self.model_inputs([prefix]),
        }
        return inputs, prefix["input_ids"].shape[1] - 1

    def model_inputs(self, prefixes: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The image tensors of several prompts, for one forward pass."""
        import torch

        keys = [k for k in ("pixel_values", "image_grid_thw") if any(k in p for p in prefixes)]
        return {k: torch.cat([p[k] for p in prefixes if k in p]) for k in keys}

    def shaped_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions (axes, batch, length) in the shape of the model's forward pass."""
        return positions

    def answer_ids(self, processor: ProcessorMixin, text: str) -> list[int]:
        """Token ids of an answer following the prompt, including the end-of-sequence token."""
        tokenizer = processor.tokenizer
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    def learnt_answer(self, processor: ProcessorMixin, text: str, longest: int, called: str = "an answer") -> list[int]:
        """`answer_ids` of an answer to learn from.

        Raises `ValueError` if it has more than `longest` tokens or a reserved token; `called` names
        it in the message.
        """
        check_text(text, self.reserved(processor), called)
        tokens = self.answer_ids(processor, text)
        if len(tokens) > longest:
            raise ValueError(f"prompt and {called.partition(' ')[2]} exceed max_model_len")
        return tokens

    def box_text(self, numbers: np.ndarray, frame: Frame) -> str:
        """A box in the family's notation: `[0.12, 0.34, 0.56, 0.78]` or `[161, 119, 322, 357]`."""
        return f"[{', '.join(written(numbers, frame))}]"

    def ground_truth(self, example: Mapping[str, Any], frame: Frame | None, resized: tuple[int, int] | None) -> str:
        """An example's ground truth as this family would write it.

        Raises `ValueError` if the example has none, and `UserError` for a box without a `frame`.
        """
        import numpy as np

        from perceptune.core.answers.boxes import from_pixels, known

        if example["box"] is not None:
            frame, size = known(frame), tuple(example["image_sizes"][0])
            return self.box_text(from_pixels(np.array(example["box"]), frame, size, resized), frame)
        if example["target"] is None:
            raise ValueError("no ground truth")
        return str(example["target"])


def family_of(model: ModelBlock) -> Family:
    """The family of a model block."""
    family: Family = load("family", model.family)
    return family.of(model)


def check_text(text: str, reserved: Mapping[str, str], called: str) -> None:
    """Raises `ValueError` with the first token of `reserved` (token to kind) that the text contains;
    `called` names the text in the message."""
    for token, kind in reserved.items():
        if token in text:
            raise ValueError(f"{called} contains the model's {kind} token `{token}`")


def check_room(prompt: int, new: int, model: ModelBlock) -> None:
    """Raises `ValueError` if a prompt and `new` tokens after it exceed the block's `max_model_len`."""
    if prompt + new > model.max_model_len:
        raise ValueError(f"prompt of {prompt} tokens and {new} new ones exceed max_model_len {model.max_model_len}")


def written(numbers: np.ndarray, frame: Frame) -> list[str]:
    """Fractions with two decimals, as in LLaVA's instruction data; other numbers as integers."""
    shares = frame in ("padded_square", "original")
    return [f"{number:.2f}" if shares else str(round(float(number))) for number in numbers]
