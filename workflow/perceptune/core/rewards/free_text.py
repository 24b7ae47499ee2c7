"""Free text that something else judges."""

from __future__ import annotations

import numpy as np

from perceptune.core.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


def free_text(answers: Answers) -> Scores:
    """Reward and component `answered`: 1 for a text, whatever it says, 0 for an empty one, which cannot be parsed."""
    texts = [text.strip() for text in answers.texts]
    there = np.array([text != "" for text in texts], dtype=float)
    reasons = [None if text else "the answer is empty" for text in texts]
    return Scores(there, [{"answer": text} if text else None for text in texts], {"answered": there}, reasons)


REWARD = Reward(
    name="free_text",
    summary="1 for an answer that is not empty; what it says, a judge has to rate",
    score=free_text,
    components=("answered",),
    metrics={"answered": RewardMetric(mean("answered"), "answered", percent=False)},
)
