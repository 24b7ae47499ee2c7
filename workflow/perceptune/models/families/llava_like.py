"""Common parts of LLaVA-style models: vision tower, projector, plain positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from perceptune.models.families.family import LANGUAGE, Family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from perceptune.contracts.config import Part


class LlavaLike(Family):
    lora_targets: ClassVar[Mapping[Part, str]] = {
        "language": LANGUAGE,
        "projector": r"(?:.*\.)?multi_modal_projector\.linear_[12]",
        "vision": (
            r"(?:.*\.)?vision_tower\.(?:.*\.)?layers?\.\d+\."
            r"(?:self_attn|attention|mlp)\.(?:q_proj|k_proj|v_proj|out_proj|projection_layer|fc1|fc2)"
        ),
    }
    feature_layer: ClassVar[int] = -1
    """Index of the vision tower's hidden states that the projector reads, if `config.json` has none."""

    def unused_layers(self, settings: Mapping[str, Any]) -> str | None:
        """The vision tower's layers after the last one that the projector reads."""
        read = settings.get("vision_feature_layer") or self.feature_layer
        vision = settings.get("vision_config")
        depth = int(vision.get("num_hidden_layers") or 0) if isinstance(vision, Mapping) else 0
        # hidden state 0 is the embeddings, and -1 is the last layer's output
        used = max(state % (depth + 1) for state in ([read] if isinstance(read, int) else read))
        unused = "|".join(map(str, range(used, depth)))
        return rf"(?:.*\.)?vision_tower\.(?:.*\.)?layers?\.(?:{unused})\..*" if unused else None

    def positions(self, model: PreTrainedModel, prefix: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """0, 1, 2, ... on one axis."""
        import torch

        return torch.arange(prefix["input_ids"].shape[1])[None]

    def shaped_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """One axis: (batch, length)."""
        return positions[0]

    def answer_ids(self, processor: ProcessorMixin, text: str) -> list[int]:
        """An answer starts with a space if the prompt ends in a word (`ASSISTANT:`, `[/INST]`)
        rather than in a line break.
        """
        prompt = self.prompt_text(processor, [{"role": "user", "content": [{"type": "text", "text": "?"}]}])
        return super().answer_ids(processor, text if prompt[-1:].isspace() else f" {text}")


class AnyResolution(LlavaLike):
    """An image becomes a thumbnail (squeezed into a square) and tiles of a larger, padded image.

    The thumbnail's tokens come first, in row-major order. The tiles' tokens follow without padding,
    in row-major order of the whole image, with a separator token after each row. Maps are made of
    the thumbnail: one per image, of constant size, in which every token covers its part of the
    image. Several images in a prompt are all tiled, as in vLLM.
    """

    def grids(self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """The square grid of the thumbnail's patches, per image.

        `pixel_values` is (images, tiles, 3, height, width).
        """
        if "pixel_values" not in prefix:
            return []
        images, _, _, height, width = prefix["pixel_values"].shape
        patch = self.patch_size(processor, height)
        return [(height // patch, width // patch)] * images

    def image_positions(
        self, processor: ProcessorMixin, prefix: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(The thumbnail's tokens; all tokens of the image, including separators.)"""
        import torch

        overview, _ = super().image_positions(processor, prefix)
        size = prefix["image_sizes"][0].tolist()
        (count,) = processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
        return overview, overview[0] + torch.arange(count)

    def patch_size(self, processor: ProcessorMixin, height: int) -> int:
        """Side of a patch in pixels, for a tile of `height` pixels."""
        return int(processor.patch_size)

    def covered(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The whole image."""
        return 0.0, 0.0, float(size[0]), float(size[1])

    def model_inputs(self, prefixes: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Tiles of all images, padded with empty tiles, and the sizes that tell them apart."""
        import torch

        encoded = [p for p in prefixes if "pixel_values" in p]
        if not encoded:
            return {}
        tiles = max(p["pixel_values"].shape[1] for p in encoded)
        pixels = [p["pixel_values"] for p in encoded]
        missing = [(0, 0) * 3 + (0, tiles - p.shape[1]) for p in pixels]
        padded = [torch.nn.functional.pad(p, room) for p, room in zip(pixels, missing, strict=True)]
        return {"pixel_values": torch.cat(padded), "image_sizes": torch.cat([p["image_sizes"] for p in encoded])}
