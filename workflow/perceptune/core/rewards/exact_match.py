"""Exact match after normalisation."""

from __future__ import annotations

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


def exact_match(answers: Answers) -> Scores:
    """Reward: 1 if answer and ground truth are equal.

    Numbers are compared by value, other text ignoring case, surrounding whitespace and a final full
    stop. Component: `correct`. An empty answer cannot be parsed.
    """
    texts = [normalised(text) for text in answers.texts]
    targets = [normalised(target or "") for target in answers.targets]
    right = np.array([a == b and a != "" for a, b in zip(texts, targets, strict=True)], dtype=float)
    parsed = [{"answer": t} if t else None for t in texts]
    return Scores(right, parsed, {"correct": right}, [None if t else "the answer is empty" for t in texts])


def normalised(text: str) -> str:
    """Normalised text: `" 3.0. "` and `"3"` become `"3"`, `"The  Cat."` becomes `"the cat"`."""
    bare = " ".join(text.lower().split()).removesuffix(".").strip()
    try:
        number = float(bare.replace(",", ""))
    except ValueError:
        return bare
    if not np.isfinite(number):
        return bare
    return str(int(number)) if number.is_integer() else repr(number)


REWARD = Reward(
    name="exact_match",
    summary="1 if answer and ground truth are equal after normalisation",
    score=exact_match,
    components=("correct",),
    metrics={"accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")},
)
