"""Binary grounding reward: IoU of at least 0.5 (for on-policy rounds)."""

from __future__ import annotations

from dataclasses import replace

from perceptune.core.rewards.iou import METRICS, OF_FRAMES, RIGHT, iou
from perceptune.core.rewards.reward import Answers, Reward, Scores


def iou_threshold(answers: Answers) -> Scores:
    """Reward: 1 if the IoU is at least 0.5, else 0; parsing and reasons as in `iou`.

    Components: those of `iou`; `accuracy`, equal to the reward; `format`, 1 if four numbers could
    be parsed, even if they are not a valid box.
    """
    scores = iou(answers)
    right = (scores.rewards >= RIGHT).astype(float)
    read = scores.was_parsed().astype(float)
    return replace(scores, rewards=right, components={**scores.components, "accuracy": right, "format": read})


REWARD = Reward(
    name="iou_threshold",
    summary="1 if the IoU of the predicted box with the ground truth is at least 0.5",
    score=iou_threshold,
    components=("iou", "accuracy", "format"),
    metrics=METRICS,
    optional=OF_FRAMES,
    needs="box",
)
