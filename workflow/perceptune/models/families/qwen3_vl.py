"""Qwen3-VL (`Qwen3VLForConditionalGeneration`)."""

from __future__ import annotations

from perceptune.models.families.qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Boxes are thousandths of width and height (arXiv:2511.21631; official 2D-grounding cookbook).

    M-RoPE's axes interleave, and features of several vision layers are added to the image tokens
    after the first decoder layers (DeepStack). The model does both itself, from the same positions
    and grids.
    """

    name = "qwen3_vl"
    model_types = ("qwen3_vl",)
    frame = "thousand"


FAMILY = Qwen3VL()
