"""Views, and what they need: attention maps, saliency maps and crops."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perceptune.contracts.config.blocks import Block, InOrder, Parameter, Positive, Prompt, Seed, Task

LOCATE = "Your task is to answer the question by first locating the relevant region in the image. Question: {question}"
"""Prompt for attention maps (P2-DPO)."""
Layer = Annotated[int, Field(ge=0)]
Layers = Annotated[tuple[Layer, Layer], InOrder]
"""First and last layer, both included."""


class ViewBlock(Block):
    """A named transformation of the image."""

    type: str | None = None
    """Type of view; null with `choice`."""
    choice: tuple[str, ...] = ()
    """Instead of `type`: views of this config, one of which is drawn by seed for each image."""
    parameters: dict[str, Parameter] = {}
    """[Parameters](#parameters-of-views) of this type of view."""
    crop: str | None = None
    """A crop block of this config, for views that need a crop; null for all others."""
    saliency_map: str | None = None
    """A `saliency_maps` block of this config, for views that need a saliency map; null for all
    others."""
    seed: Seed = 0
    """Seed of the view's random draws."""

    @model_validator(mode="after")
    def _check_type_or_choice(self) -> ViewBlock:
        if (self.type is None) == (not self.choice):
            raise ValueError("expected either `type` or `choice`")
        if self.choice and (self.parameters or self.crop or self.saliency_map):
            raise ValueError("`parameters`, `crop` and `saliency_map` cannot be combined with `choice`")
        return self


class AttentionBlock(Block):
    """Attention of a policy on the image before it answers."""

    method: Literal["mean", "gradient"] = "mean"
    """`mean`: attention averaged over heads and layers; `gradient`: attention of one layer weighted
    by its gradient (ViCrop's code)."""
    layers: Layers | None = None
    """First and last layer, from 0, both included; null: all. `gradient` needs a single layer."""
    prompt: Prompt = LOCATE
    """The user's turn after the image; `{question}` stands for the question."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""


class SaliencyBlock(Block):
    """Saliency of image patches: the attention they receive in a DINOv2 (PAPO's semantic-aware
    mask)."""

    path: str
    """Folder with a DINOv2 model in Hugging Face format, relative to the working directory."""
    layers: Layers = (6, 9)
    """First and last layer whose attention is averaged, from 0, both included. The paper gives 6 to
    9 without saying how it counts."""
    size: Positive = 224
    """Side in pixels of the square that images are resized to; a multiple of the patch size
    (usually 14)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the weights."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""


class CropBlock(Block):
    """The salient crop of every example (P2-DPO, algorithm 1)."""

    attention_map: str
    """The `attention_maps` block that determines the crop."""
    base: tuple[Positive, Positive] = (336, 336)
    """Width and height of the smallest crop, in pixels."""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    """Candidate sizes, as multiples of `base`."""
    neighbours: Literal[4, 8] = 4
    """Reproduction only: number of neighbouring windows the best one is compared with. P2-DPO's
    paper gives no number; its code uses 4."""
    variant: Literal["paper", "code"] = "paper"
    """Reproduction only: follow P2-DPO's paper or its code where they differ (crop centre, ties,
    rounding)."""
