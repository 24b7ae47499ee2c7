"""Preference pairs that the model generates itself (P2-DPO)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perceptune.contracts.config.blocks import Block, InOrder, Positive, Prompt, Seed, Share, Task
from perceptune.contracts.config.sampling import Decoding


class ContrastBlock(Block):
    """Contrastive decoding: amplifies what the answer's own view (expert) makes more likely than
    this view (amateur)."""

    view: str
    """View of the amateur."""
    strength: Annotated[float, Field(ge=0)] = 0.1
    """lambda: logits are (1 + lambda) expert - lambda amateur."""
    plausibility: Share = 0.1
    """Sample only tokens whose expert probability is at least this fraction of the most likely
    token's; 0: all."""


class AnswerBlock(Decoding):
    """How one response of a pair is generated."""

    view: str = "original"
    """View of the image."""
    prompt: Prompt = "{question}"
    """The user's turn after the image; `{question}` stands for the question."""
    contrast: ContrastBlock | None = None
    """Contrastive decoding; null: plain decoding."""


class PairBlock(Block):
    """A preference pair: one response generated under good conditions, one under bad conditions."""

    chosen: AnswerBlock
    """The preferred response."""
    rejected: AnswerBlock
    """The rejected response."""


class PairingBlock(Block):
    """Preference pairs that the model generates itself (P2-DPO)."""

    focus: PairBlock | None = None
    """Responses to images with the salient crop enhanced (chosen) and erased (rejected); null:
    none."""
    robust: PairBlock | None = None
    """A contrastively decoded response (chosen) and a response to a noisy image (rejected); null:
    none."""
    loss_prompt: Literal["question", "enhanced"] = "question"
    """Prompt of the calibration loss on image and crop: the plain question, or the prompt of the
    chosen focus response."""
    split: str = "train"
    """Split of the dataset."""
    tasks: tuple[Task, ...] = ()
    """Tasks to use; empty: all."""
    limit: Positive | None = None
    """Maximum number of questions per task, in dataset order; null: all."""
    seed: Seed = 0
    """Seed of all other draws; responses have their own seeds."""


class FilterBlock(Block):
    """Which pairs to train on (P2-DPO, stage 6). Focus and robust pairs are filtered separately."""

    context: Literal["own", "original"] = "own"
    """What log-probs are conditioned on: `own`, the image and prompt each response was generated
    from; `original`, the original image and the plain question."""
    max_ppl: Annotated[float, Field(gt=0)] | None = 2.5
    """Upper limit of the perplexity of both responses, exclusive; null: no limit."""
    margin: Annotated[tuple[float, float], InOrder] | None = (-0.174, 0.208)
    """Minimum and maximum difference of the mean log-prob per token, chosen minus rejected,
    inclusive; null: no limit."""
    central_quantile: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of `margin`: keep this central share of the margins of each kind of pair; null: use
    `margin`."""
    applies_to: Literal["each", "focus"] = "each"
    """Reproduction only: `each`, limits apply to every pair; `focus`, limits apply to the focus
    pair and its outcome to the whole record, and a record without a focus pair is not filtered, as
    in P2-DPO's code."""
    clip_score: str | None = None
    """A `clip_scores` block of this config whose scores are stored with the pairs; null: none."""
    max_groups: Positive | None = None
    """Maximum number of records, drawn by seed; null: all."""
    seed: Seed = 0
    """Seed of that draw."""


class ClipBlock(Block):
    """CLIP similarity of question and image, and of question and crop."""

    path: str
    """Folder with a CLIP model in Hugging Face format, relative to the working directory."""
    prompt: Prompt = "{question}"
    """Text; `{question}` stands for the question. Text beyond CLIP's context length is
    truncated."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the weights."""
