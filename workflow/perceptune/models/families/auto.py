"""Any vision-language model that transformers and vLLM support: all is taken from the model itself.

The stage `probe` checks on the user's weights whether that is understood correctly, see
`engines.probing`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from perceptune.contracts.errors import UserError
from perceptune.models.families.family import Family, Messages

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import PreTrainedModel, ProcessorMixin

    from perceptune.contracts.config import ModelBlock, Part

TOKENS = ("input_ids", "attention_mask", "position_ids", "labels", "token_type_ids", "mm_token_type_ids")
"""Tensors of a processor that describe tokens; all others describe images."""
QUESTION: Mapping[str, Any] = {"type": "text", "text": "?"}
IMAGE: Mapping[str, Any] = {"type": "image"}
MARK = "Q7"
"""An answer, to see what the chat template writes around it."""


class Auto(Family):
    """No boxes without `coordinates`, and no attention maps: nothing in a model folder says how a
    model writes boxes, or which part of an image a token shows.
    """

    name = "auto"
    model_types = ()
    frame = None
    places_tokens = False
    probed = True
    lora_targets: ClassVar[Mapping[Part, str]] = {
        "language": r"(?:.*\.)?(?:language_model|text_model)\.(?:.*\.)?layers\.\d+\.(?!(?:.*\.)?experts\.)"
        r"(?:.*\.)?(?:\w*proj\w*|fc\d?|w\d|wo|wqkv|dense\w*|linear\w*|query_key_value)"
    }
    """The decoder's linear layers by their usual names, without the experts of a mixture, which share
    one tensor, and their router."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    def of(self, model: ModelBlock) -> Family:
        """The family of one model folder."""
        return Auto(model.path)

    def prefix(
        self, processor: ProcessorMixin, messages: Messages, images: list[Image.Image]
    ) -> dict[str, torch.Tensor]:
        """As in `Family`, without the labels that some processors add."""
        encoded = super().prefix(processor, messages, images)
        return {name: tensor for name, tensor in encoded.items() if name != "labels"}

    def placeholders(self, processor: ProcessorMixin) -> dict[str, str]:
        """The special tokens that the processor writes for an image, and those of other media."""
        return {**super().placeholders(processor), **dict.fromkeys(_image_tokens(processor), "image")}

    def prompt_length(self, processor: ProcessorMixin, tokens: Sequence[int], images: Sequence[Image.Image]) -> int:
        """As in `Family`, from the processor's own output for images of these sizes."""
        return len(tokens) + sum(_added_tokens(processor, image.size) for image in images)

    def positions(self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """By the model's `get_rope_index` if it has one; otherwise 0, 1, 2, ..."""
        import torch

        method = getattr(model.model, "get_rope_index", None)
        if method is None:
            return torch.arange(prefix["input_ids"].shape[1])[None]
        wanted = inspect.signature(method).parameters
        found = method(**{name: tensor.cpu() for name, tensor in prefix.items() if name in wanted})[0]
        return found[:, 0] if found.dim() == 3 else found

    def shaped_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """A single axis is left out: (batch, length)."""
        return positions[0] if len(positions) == 1 else positions

    def model_inputs(self, prefixes: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """All tensors of images, one behind the other, padded with zeros where their shapes differ."""
        import torch

        found = {}
        for name in dict.fromkeys(name for prefix in prefixes for name in prefix if name not in TOKENS):
            tensors = [prefix[name] for prefix in prefixes if name in prefix]
            shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
            room = [
                [n for size, most in zip(t.shape[:0:-1], shape[::-1], strict=True) for n in (0, most - size)]
                for t in tensors
            ]
            found[name] = torch.cat([torch.nn.functional.pad(t, one) for t, one in zip(tensors, room, strict=True)])
        return found

    def answer_ids(self, processor: ProcessorMixin, text: str) -> list[int]:
        """An answer between what the chat template writes before and after one."""
        around = _around(self, processor)
        return [*processor.tokenizer(around.before + text, add_special_tokens=False)["input_ids"], around.end]

    def stops(self, processor: ProcessorMixin) -> set[int]:
        """Tokens that end an answer: those in the folder's `generation_config.json`, and the
        tokenizer's."""
        file = Path(self._path or "") / "generation_config.json"
        named = json.loads(file.read_text()).get("eos_token_id") if self._path and file.exists() else None
        ids = named if isinstance(named, list) else [named]
        return {int(one) for one in (*ids, processor.tokenizer.eos_token_id) if one is not None}

    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """Raises `UserError`."""
        raise UserError("family `auto` knows no grid of image tokens, which attention maps need")

    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Raises `UserError`."""
        raise UserError("family `auto` knows no grid of image tokens, which attention maps need")

    def check(self, processor: ProcessorMixin) -> None:
        """Raises `UserError` if the processor is not understood."""
        import numpy as np
        from PIL import Image

        def refused(reason: str, hint: str | None = None) -> UserError:
            return UserError(f"model folder `{self._path}`: family `auto` cannot use it, because {reason}", hint)

        if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
            raise refused(f"its processor is a `{type(processor).__name__}` without a tokenizer or an image processor")
        if not (getattr(processor, "chat_template", None) or processor.tokenizer.chat_template):
            raise refused(
                "it has no chat template", "write one into `chat_template.jinja` in the folder if you know its format"
            )
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        asked = [{"role": "user", "content": [IMAGE, QUESTION]}]
        try:
            plain = _rendered(processor, [{"role": "user", "content": [QUESTION]}])
            if _rendered(processor, asked) == plain:
                raise refused("its chat template writes no placeholder for an image")
            encoded = self.prefix(processor, asked, [Image.fromarray(pixels)])
        except UserError:
            raise
        except Exception as error:  # whatever a foreign template or processor raises
            raise refused(f"its processor cannot encode a question with an image: {_line(error)}") from error
        if not any(name not in TOKENS for name in encoded):
            raise refused(f"its processor returns no tensor of an image, only {', '.join(sorted(encoded))}")
        if not _image_tokens(processor):
            raise refused("its processor writes no special token for an image")


class _Around(NamedTuple):
    """What comes before and after an answer."""

    before: str
    end: int


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _rendered(processor: ProcessorMixin, messages: Messages, prompt: bool = True) -> str:
    return str(processor.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False))


@cache
def _around(family: Auto, processor: ProcessorMixin) -> _Around:
    """White space before an answer, and the token after it if it ends answers; by the chat template.

    Templates that cannot write answers end them with the tokenizer's token, and prompts that end in a
    word are followed by a space.
    """
    tokenizer = processor.tokenizer
    asked = [{"role": "user", "content": [QUESTION]}]
    prompt = _rendered(processor, asked)
    answered = [*asked, {"role": "assistant", "content": [{"type": "text", "text": MARK}]}]
    try:
        whole = _rendered(processor, answered, prompt=False)
    except Exception:  # whatever a foreign template raises
        whole = ""
    before, mark, after = whole.removeprefix(prompt).partition(MARK)
    if not mark or before.strip() or not whole.startswith(prompt):
        last = tokenizer(prompt, add_special_tokens=False)["input_ids"][-1:]
        in_word = not prompt[-1:].isspace() and not {*last} & {*tokenizer.all_special_ids}
        before, after = " " if in_word else "", ""
    following = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
    stops = family.stops(processor)
    return _Around(before, following[0] if {*following} & stops else tokenizer.eos_token_id)


@cache
def _image_tokens(processor: ProcessorMixin) -> tuple[str, ...]:
    """The special tokens that appear in a prompt because of an image."""
    from PIL import Image

    tokenizer = processor.tokenizer
    without = set(tokenizer(_rendered(processor, [{"role": "user", "content": [QUESTION]}]))["input_ids"])
    ids = _encoded(processor, Image.new("RGB", (64, 48)))[0]
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - ends - without
    return tuple(tokenizer.convert_ids_to_tokens(i) for i in dict.fromkeys(ids) if i in special)


@cache
def _added_tokens(processor: ProcessorMixin, size: tuple[int, int]) -> int:
    """Tokens that an image of this size, (width, height), adds to the prompt with its placeholder."""
    from PIL import Image

    whole, prompt = _encoded(processor, Image.new("RGB", size))
    return len(whole) - len(prompt)


def _encoded(processor: ProcessorMixin, image: Image.Image) -> tuple[list[int], list[int]]:
    """Token ids of a question about one image: as the processor expands it, and with the placeholder."""
    text = _rendered(processor, [{"role": "user", "content": [IMAGE, QUESTION]}])
    special = Family._adds_special_tokens(processor, text)
    encoded = processor(images=[image], text=[text], return_tensors="pt", add_special_tokens=special)
    return encoded["input_ids"][0].tolist(), processor.tokenizer(text, add_special_tokens=special)["input_ids"]


FAMILY = Auto()
