"""Free text, to be rated by a judge."""

from __future__ import annotations

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


def free_text(answers: Answers) -> Scores:
    """Reward and component `answered`: 1 for any text, 0 for an empty one, which cannot be parsed."""
    texts = [text.strip() for text in answers.texts]
    nonempty = np.array([text != "" for text in texts], dtype=float)
    reasons = [None if text else "the answer is empty" for text in texts]
    return Scores(nonempty, [{"answer": text} if text else None for text in texts], {"answered": nonempty}, reasons)


REWARD = Reward(
    name="free_text",
    summary="1 for an answer that is not empty; a judge rates its content",
    score=free_text,
    components=("answered",),
    metrics={"answered": RewardMetric(mean("answered"), "answered", percent=False)},
)
