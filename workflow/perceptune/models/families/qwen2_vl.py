"""Qwen2-VL (`Qwen2VLForConditionalGeneration`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perceptune.models.families.family import written
from perceptune.models.families.qwen_vl import QwenVL

if TYPE_CHECKING:
    import numpy as np

    from perceptune.core.answers.boxes import Frame


class Qwen2VL(QwenVL):
    name = "qwen2_vl"
    model_types = ("qwen2_vl",)
    frame = "thousand"

    def box_text(self, numbers: np.ndarray, frame: Frame) -> str:
        """`<|box_start|>(161,119),(322,357)<|box_end|>`: thousandths, as in its training data
        (arXiv:2409.12191, section 2.2.1).

        The markers are special tokens: sampled answers are stored without them.
        """
        x1, y1, x2, y2 = written(numbers, frame)
        return f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


FAMILY = Qwen2VL()
