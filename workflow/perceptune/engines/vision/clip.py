"""Cosine similarity of texts and images, with any CLIP model of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from transformers import AutoModel, AutoProcessor

from perceptune.contracts.config import ClipBlock
from perceptune.contracts.errors import UserError
from perceptune.models.placement import on_device, own_device


class Clip:
    """A loaded CLIP model, on this process's GPU if there is one."""

    def __init__(self, block: ClipBlock) -> None:
        """Raises `UserError` if the folder does not hold a CLIP model."""
        try:
            self._processor = AutoProcessor.from_pretrained(block.path)
            model = AutoModel.from_pretrained(block.path, dtype=getattr(torch, block.dtype), use_safetensors=True)
        except (OSError, ValueError) as error:
            raise UserError(f"CLIP model folder `{block.path}` cannot be loaded: {error}") from error
        if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
            raise UserError(f"model folder `{block.path}` holds a {type(model).__name__}, expected a CLIP model")
        self._model = model.to(own_device()).eval()
        self._longest = int(self._model.config.text_config.max_position_embeddings)

    def cosines(self, texts: Sequence[str], images: Sequence[Sequence[Image]]) -> list[list[float]]:
        """Cosine of each text with each of its own images, one list per text.

        Long texts are truncated.
        """
        pictures = [image for group in images for image in group]
        encoded = self._processor(
            text=list(texts),
            images=pictures,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._longest,
        )
        with torch.inference_mode():
            output = self._model(**on_device(encoded, self._model))
        embedded, seen = (
            torch.nn.functional.normalize(e.float(), dim=-1).cpu() for e in (output.text_embeds, output.image_embeds)
        )
        owner = torch.tensor([i for i, group in enumerate(images) for _ in group], dtype=torch.long)
        cosines = (embedded[owner] * seen).sum(dim=-1)
        return [part.tolist() for part in cosines.split([len(group) for group in images])]
