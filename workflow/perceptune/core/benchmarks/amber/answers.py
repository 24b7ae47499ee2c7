"""Reads answers to AMBER's yes/no questions."""

from __future__ import annotations

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


def amber(answers: Answers) -> Scores:
    """Reward: 1 if the answer read by `official_answer` is the ground truth, else 0.

    Any text other than `Yes` or `No` is unparsable, and wrong. Component: `correct`.
    """
    parsed = [official_answer(text) for text in answers.texts]
    true = [(target or "").lower() for target in answers.targets]
    right = np.array([p == t for p, t in zip(parsed, true, strict=True)], dtype=float)
    reasons = [None if p else "neither `Yes` nor `No`" for p in parsed]
    return Scores(right, [p and {"answer": p} for p in parsed], {"correct": right}, reasons)


def official_answer(text: str) -> str | None:
    """`yes` for the text `Yes`, `no` for `No`, None for anything else, as in AMBER's
    `inference.py`.

    Surrounding white space is ignored, because inference scripts strip it before they write
    answers.
    """
    return {"Yes": "yes", "No": "no"}.get(text.strip())


REWARD = Reward(
    name="amber",
    summary="1 if the answer is exactly the true `Yes` or `No`, as AMBER's script reads it",
    score=amber,
    components=("correct",),
    metrics={"accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")},
)
