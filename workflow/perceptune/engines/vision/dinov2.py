"""The attention that image patches receive in a DINOv2 model of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from perceptune.contracts.config import SaliencyBlock
from perceptune.contracts.errors import UserError
from perceptune.core.views.patch_saliency import received
from perceptune.models.placement import own_device

KINDS = ("dinov2", "dinov2_with_registers")


class Dino:
    """A loaded DINOv2 up to the last requested layer, on this process's GPU if there is one."""

    def __init__(self, block: SaliencyBlock) -> None:
        """Raises `UserError` if the folder does not hold a DINOv2 model, or one without these
        layers or that cannot handle images of this size.

        Nothing is ever downloaded.
        """
        try:
            processor = AutoImageProcessor.from_pretrained(block.path, local_files_only=True)
            model = AutoModel.from_pretrained(
                block.path,
                dtype=getattr(torch, block.dtype),
                # the other implementations do not return attention weights
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
            )
        except (OSError, ValueError) as error:
            raise UserError(f"DINOv2 model folder `{block.path}` cannot be loaded: {error}") from error
        if model.config.model_type not in KINDS:
            raise UserError(f"model folder `{block.path}` holds a {type(model).__name__}, expected a DINOv2 model")
        (first, last), layers = block.layers, int(model.config.num_hidden_layers)
        if last >= layers:
            raise UserError(
                f"key `layers`: [{first}, {last}], expected first and last of the model's layers 0 to {layers - 1}"
            )
        self._patch = int(model.config.patch_size)
        if block.size % self._patch:
            raise UserError(
                f"key `size`: {block.size}, expected a multiple of the model's patch of {self._patch} pixels"
            )
        del model.encoder.layer[last + 1 :]  # unused
        self._model = model.to(own_device()).eval()
        self._first, self._size = first, block.size
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's patches."""
        return self._size // self._patch, self._size // self._patch

    def received(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Attention received by every patch, mean over heads and layers: (images, patches) float32.

        Patches are in row-major order. The whole image is scaled to a square; the processor would
        crop its centre instead.
        """
        pixels = torch.stack([self._pixels(image) for image in images]).to(self._model.device, self._model.dtype)
        with torch.inference_mode():
            attentions = self._model(pixels, output_attentions=True).attentions
        mean = torch.stack([layer.float().mean(dim=1) for layer in attentions[self._first :]]).mean(dim=0)
        specials = mean.shape[-1] - self.grid[0] * self.grid[1]
        return received(mean.cpu().numpy(), specials)

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        scaled = np.array(image.resize((self._size, self._size), Image.Resampling.BICUBIC))
        return (torch.from_numpy(scaled).permute(2, 0, 1).float() / 255 - self._mean) / self._std
