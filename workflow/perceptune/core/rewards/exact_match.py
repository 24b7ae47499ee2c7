"""Exact match after normalisation."""

from __future__ import annotations

import numpy as np

from perceptune.core.answers.short_answers import normalised
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores, parsed_columns


def exact_match(answers: Answers) -> Scores:
    """Reward: 1 if answer and ground truth are equal.

    Numbers are compared by value, other text ignoring case, surrounding whitespace and a final full
    stop. Component: `correct`. An empty answer cannot be parsed.
    """
    texts = [normalised(text) for text in answers.texts]
    targets = [normalised(target or "") for target in answers.targets]
    right = np.array([a == b and a != "" for a, b in zip(texts, targets, strict=True)], dtype=float)
    parsed = parsed_columns({"answer": texts}, [t != "" for t in texts])
    return Scores(right, parsed, {"correct": right}, [None if t else "the answer is empty" for t in texts])


REWARD = Reward(
    name="exact_match",
    summary="1 if answer and ground truth are equal after normalisation",
    score=exact_match,
    components=("correct",),
    metrics={"accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")},
    needs="answer",
)
