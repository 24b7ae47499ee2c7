"""LLaVA-1.5 (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from perceptune.core.boxes import Frame
from perceptune.models.family import Family


class Llava(Family):
    name = "llava"
    lora_targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

    def prepare_image(self, image: Image.Image, processor: ProcessorMixin) -> Image.Image:
        """Padded to a square with the processor's mean colour, as LLaVA-1.5 was trained.

        Many checkpoints in Hugging Face format cut the middle out instead; on a square both do nothing.
        """
        side = max(image.size)
        if image.size == (side, side):
            return image
        mean = processor.image_processor.image_mean  # type: ignore[attr-defined]
        square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def positions(self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """0, 1, 2, ... on one axis."""
        return torch.arange(prefix["input_ids"].shape[1])[None]

    def shaped_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """One axis: (batch, length)."""
        return positions[0]

    def stored_name(self, name: str) -> str:
        """transformers 5 leaves out a level of the CLIP tower that published checkpoints, and so vLLM, have."""
        head, dot, tail = name.partition("vision_tower.")
        return f"{head}{dot}vision_model.{tail}" if dot and not tail.startswith("vision_model.") else name

    def answer_ids(self, processor: ProcessorMixin, text: str) -> list[int]:
        """After `ASSISTANT:` an answer starts with a space."""
        return super().answer_ids(processor, f" {text}")

    def box_text(self, numbers: np.ndarray, frame: Frame) -> str:
        """`[0.12, 0.34, 0.56, 0.78]`: two decimals, as in LLaVA's instruction data."""
        return "[" + ", ".join(f"{number:.2f}" for number in numbers) + "]"
