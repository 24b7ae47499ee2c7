"""Common parts of the Qwen-VL models: images of any size as one grid, M-RoPE positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from perceptune.models.families.family import LANGUAGE, Family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from perceptune.contracts.config import Part


class QwenVL(Family):
    lora_targets: ClassVar[Mapping[Part, str]] = {
        "language": LANGUAGE,
        "projector": (r"(?:.*\.)?visual\.(?:merger|deepstack_merger_list\.\d+)\.(?:mlp\.[02]|linear_fc[12])"),
        "vision": (
            r"(?:.*\.)?visual\.blocks\.\d+\."
            r"(?:attn\.(?:qkv|proj)|mlp\.(?:fc[12]|linear_fc[12]|gate_proj|up_proj|down_proj))"
        ),
    }
    resizes_by_pixels = True
    markup = tuple(f"<|{name}_{side}|>" for name in ("object_ref", "box", "quad") for side in ("start", "end"))

    def positions(self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """M-RoPE: time, height and width axes, shape (3, P)."""
        keys = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        positions, _ = model.model.get_rope_index(**{k: prefix[k].cpu() for k in keys if k in prefix})
        return positions[:, 0]

    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """The processor's own grids after patch merging."""
        merge = processor.image_processor.merge_size
        return [(int(rows) // merge, int(columns) // merge) for _, rows, columns in prefix.get("image_grid_thw", ())]

    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The whole image: it is resized, not cropped."""
        return 0.0, 0.0, float(size[0]), float(size[1])
