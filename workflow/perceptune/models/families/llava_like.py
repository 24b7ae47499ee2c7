"""What the models of LLaVA's architecture have in common: vision tower, projector, and a language model with plain positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from perceptune.models.families.family import Family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin


def stored_name(name: str) -> str:
    """transformers 5 leaves out a level of the CLIP and SigLIP towers that published checkpoints, and so vLLM, have."""
    head, dot, tail = name.partition("vision_tower.")
    return f"{head}{dot}vision_model.{tail}" if dot and not tail.startswith("vision_model.") else name


class LlavaLike(Family):
    def positions(self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """0, 1, 2, ... on one axis."""
        import torch

        return torch.arange(prefix["input_ids"].shape[1])[None]

    def shaped_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """One axis: (batch, length)."""
        return positions[0]

    def stored_name(self, name: str) -> str:
        return stored_name(name)

    def answer_ids(self, processor: ProcessorMixin, text: str) -> list[int]:
        """An answer starts with a space where the prompt ends in a word (`ASSISTANT:`, `[/INST]`), not in a line break."""
        prompt = self.prompt_text(processor, [{"role": "user", "content": [{"type": "text", "text": "?"}]}])
        return super().answer_ids(processor, text if prompt[-1:].isspace() else f" {text}")


class AnyResolution(LlavaLike):
    """An image becomes an overview, the whole of it squeezed into a square, and tiles of a larger, padded one.

    Its tokens are the overview's, row by row, then the tiles' without padding, row by row of the whole image and a token after
    each row. Maps are of the overview: one for each image, of the same size, on which every token sees its part of the image.
    Several images in a prompt are all tiled, as vLLM does.
    """

    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """The square of the overview's patches, per image; `pixel_values` is (images, tiles, 3, height, width)."""
        if "pixel_values" not in prefix:
            return []
        images, _, _, height, width = prefix["pixel_values"].shape
        patch = self.patch_size(processor, height)
        return [(height // patch, width // patch)] * images

    def image_positions(
        self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(The overview's tokens; these and the tiles' and those after each row.)"""
        import torch

        overview, _ = super().image_positions(processor, prefix)
        size = prefix["image_sizes"][0].tolist()
        (count,) = processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
        return overview, overview[0] + torch.arange(count)

    def patch_size(self, processor: ProcessorMixin, height: int) -> int:
        """Pixels on the side of a patch, in a tile of `height` pixels."""
        return int(processor.patch_size)

    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The whole image."""
        return 0.0, 0.0, float(size[0]), float(size[1])

    def model_inputs(self, prefixes: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Tiles of all images, with empty ones where another image has more, and the sizes that say which are empty."""
        import torch

        given = [p for p in prefixes if "pixel_values" in p]
        if not given:
            return {}
        tiles = max(p["pixel_values"].shape[1] for p in given)
        pixels = [p["pixel_values"] for p in given]
        missing = [(0, 0) * 3 + (0, tiles - p.shape[1]) for p in pixels]
        padded = [torch.nn.functional.pad(p, room) for p, room in zip(pixels, missing, strict=True)]
        return {"pixel_values": torch.cat(padded), "image_sizes": torch.cat([p["image_sizes"] for p in given])}
