"""InternVL in Hugging Face format (`InternVLForConditionalGeneration`; checkpoints `*-hf`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from perceptune.models.families.family import written
from perceptune.models.families.llava_like import LlavaLike

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import ProcessorMixin

    from perceptune.core.answers.boxes import Frame


class InternVL(LlavaLike):
    """An image becomes tiles and a thumbnail of the whole image; a single tile has no thumbnail.

    Maps are made of the thumbnail, in which every token covers its part of the image.
    """

    name = "internvl"
    model_types = ("internvl",)
    frame = "thousand"
    markup = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")

    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """The square grid of a tile's tokens, per image."""
        images = int((prefix["input_ids"][0] == processor.start_image_token_id).sum())
        side = round(processor.image_seq_length**0.5)
        return [(side, side)] * images

    def image_positions(
        self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(The last tile's tokens; those of all tiles.)"""
        import torch

        ids = prefix["input_ids"][0]
        marks = (processor.start_image_token_id, processor.end_image_token_id)
        start, end = (int((ids == mark).nonzero()[0, 0]) for mark in marks)
        image = torch.arange(start + 1, end)
        return image[-processor.image_seq_length :], image

    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The whole image."""
        return 0.0, 0.0, float(size[0]), float(size[1])

    def box_text(self, numbers: np.ndarray, frame: Frame) -> str:
        """`[[161, 119, 322, 357]]`: thousandths, as in InternVL's documented chat data format."""
        return f"[[{', '.join(written(numbers, frame))}]]"


FAMILY = InternVL()
