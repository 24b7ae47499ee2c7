"""What a sampling engine is asked and what it answers; without the engine, which takes long to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image


@dataclass(frozen=True)
class Contrast:
    """Contrastive amplification: what the amateur is shown, lambda, and the plausible share."""

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


@dataclass(frozen=True)
class Answer:
    """One sampled response.

    `logprobs`: of the sampled tokens under the model itself, before temperature, top-p and top-k, float32.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    prompt_tokens: int
