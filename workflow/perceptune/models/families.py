"""Families by name. A new one is a module here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.contracts.config import ModelBlock
from perceptune.models.family import Family
from perceptune.models.internvl import InternVL
from perceptune.models.llava import Llava
from perceptune.models.llava_next import LlavaNext
from perceptune.models.llava_onevision import LlavaOnevision
from perceptune.models.qwen2_5_vl import Qwen25VL
from perceptune.models.qwen2_vl import Qwen2VL
from perceptune.models.qwen3_vl import Qwen3VL

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (Llava(), LlavaNext(), LlavaOnevision(), Qwen2VL(), Qwen25VL(), Qwen3VL(), InternVL())
}


def family_of(model: ModelBlock) -> Family:
    """The family of a model block."""
    return FAMILIES[model.family].of(model)
