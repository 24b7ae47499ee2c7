"""A box is right or wrong: IoU of at least 0.5 (grounding in reinforcement rounds)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perceptune.core.rewards.iou import METRICS, OF_FRAMES, RIGHT, iou
from perceptune.core.rewards.reward import Answers, Reward, Scores


def iou_threshold(answers: Answers) -> Scores:
    """Reward: 1 where the IoU is 0.5 or more, else 0; parsing, frames and reasons are those of `iou`.

    Components: those of `iou`; `accuracy`, the reward; `format`, 1 where four numbers could be read, be they a box or not.
    """
    scores = iou(answers)
    right = (scores.rewards >= RIGHT).astype(float)
    read = np.array([p is not None for p in scores.parsed], dtype=float)
    return replace(scores, rewards=right, components={**scores.components, "accuracy": right, "format": read})


REWARD = Reward(
    name="iou_threshold",
    summary="1 where the IoU of the answered box with the true one is 0.5 or more",
    score=iou_threshold,
    components=("iou", "accuracy", "format"),
    metrics=METRICS,
    optional=OF_FRAMES,
)
