"""Questions and answers of a sampling engine, without the engine, which takes long to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image


@dataclass(frozen=True)
class Contrast:
    """Contrastive amplification: the amateur's images, lambda, and the plausibility threshold."""

    images: Sequence[Image]
    strength: float
    plausibility: float


@dataclass(frozen=True)
class Question:
    """One request: messages with their images, and how to draw its n answers."""

    messages: Sequence[Mapping[str, Any]]
    images: Sequence[Image]
    n: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int
    contrast: Contrast | None = None
    escaped: bool = False
    """Whether reserved tokens in the text are escaped, rather than the question refused."""


@dataclass(frozen=True)
class Answer:
    """One sampled response.

    `logprobs`: log-probs of the sampled tokens under the model itself, before temperature, top-p
    and top-k, float32.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    prompt_tokens: int
