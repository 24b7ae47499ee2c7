"""Right or wrong on AMBER's yes/no questions."""

from __future__ import annotations

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


def amber(answers: Answers) -> Scores:
    """Reward: 1 when the answer, as `official_answer` reads it, is the true one. Anything else cannot be parsed, and is wrong.

    Component: `correct`.
    """
    parsed = [official_answer(text) for text in answers.texts]
    true = [(target or "").lower() for target in answers.targets]
    right = np.array([p == t for p, t in zip(parsed, true, strict=True)], dtype=float)
    reasons = [None if p else "neither `Yes` nor `No`" for p in parsed]
    return Scores(right, [p and {"answer": p} for p in parsed], {"correct": right}, reasons)


def official_answer(text: str) -> str | None:
    """`yes` and `no` for the texts `Yes` and `No`, nothing else (source: AMBER's `inference.py`, read there).

    White space around the answer does not count, as inference scripts strip it before they write the answer.
    """
    return {"Yes": "yes", "No": "no"}.get(text.strip())


REWARD = Reward(
    name="amber",
    summary="1 where the answer is exactly the true `Yes` or `No`, as AMBER's script reads it",
    score=amber,
    components=("correct",),
    metrics={"accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")},
)
