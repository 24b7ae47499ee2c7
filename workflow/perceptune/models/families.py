"""Families by name. A new one is a module here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.contracts.config import ModelBlock
from perceptune.models.family import Family
from perceptune.models.llava import Llava
from perceptune.models.qwen2_5_vl import Qwen25VL

FAMILIES: dict[str, Family] = {family.name: family for family in (Llava(), Qwen25VL())}


def family_of(model: ModelBlock) -> Family:
    """The family of a model block."""
    return FAMILIES[model.family].of(model)
