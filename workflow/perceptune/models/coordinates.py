"""The coordinate format of a model's boxes. Reads configuration files only, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.plugins import load
from perceptune.core.answers.boxes import Frame


def coordinate_frame(model: ModelBlock) -> Frame | None:
    """The coordinate format of a model's boxes: the block's `coordinates`, or its family's; None if
    neither names one.
    """
    frame: Frame | None = model.coordinates or load("family", model.family).frame
    return frame


def resized_sizes(model: ModelBlock, sizes: np.ndarray) -> np.ndarray:
    """Width and height after the Qwen-VL processor's resize, in pixels, (n, 2) float64.

    `sizes` are the original sizes, (n, 2). Images without a size (NaN) have NaN, and so have images that
    the processor refuses because they are too long and thin: no model was asked about them.
    """
    distinct, places = np.unique(sizes, axis=0, return_inverse=True)
    resized = [_resized_or_nan(model, width, height) for width, height in distinct]
    return np.array(resized, dtype=float).reshape(-1, 2)[places]


def _resized_or_nan(model: ModelBlock, width: float, height: float) -> tuple[float, float]:
    if np.isnan(width):
        return np.nan, np.nan
    _image_processor(model.path)  # first, because an error here does not concern an image
    try:
        return _resized(model.path, model.pixels, int(width), int(height))
    except ValueError:
        return np.nan, np.nan


def framed(
    example: Mapping[str, Any], model: ModelBlock
) -> tuple[Mapping[str, Any], Frame | None, tuple[int, int] | None]:
    """The arguments of `Family.ground_truth`: example, coordinate format, resized size if
    needed.

    Raises `ValueError` for an image that the processor refuses.
    """
    frame = coordinate_frame(model)
    if frame != "resized_pixels" or example["box"] is None:
        return example, frame, None
    width, height = example["image_sizes"][0]
    return example, frame, _resized(model.path, model.pixels, width, height)


def pixel_limits(model: ModelBlock) -> dict[str, dict[str, int]]:
    """Processor arguments for the block's `pixels`; empty if it has none."""
    if model.pixels is None:
        return {}
    fewest, most = model.pixels
    # named edges, but these are numbers of pixels
    return {"size": {"shortest_edge": fewest, "longest_edge": most}}


@cache
def _resized(path: str, pixels: tuple[int, int] | None, width: int, height: int) -> tuple[int, int]:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    processor = _image_processor(path)
    fewest, most = pixels or (processor.size["shortest_edge"], processor.size["longest_edge"])
    side = processor.patch_size * processor.merge_size
    tall, wide = smart_resize(height, width, factor=side, min_pixels=fewest, max_pixels=most)
    return wide, tall


@cache
def _image_processor(path: str):  # type: ignore[no-untyped-def]
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(path)
