"""Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`)."""

from __future__ import annotations

from perceptune.models.families.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Boxes are pixels of the resized image (technical report, arXiv:2502.13923, section 2.2)."""

    name = "qwen2_5_vl"
    model_types = ("qwen2_5_vl",)
    frame = "resized_pixels"


FAMILY = Qwen25VL()
