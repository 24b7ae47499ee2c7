"""Free text that something else judges."""

from __future__ import annotations

import numpy as np

from perceptune.core.rewards.reward import Answers, Reward, Scores


def free_text(answers: Answers) -> Scores:
    """Reward and component `answered`: 1 for a text, whatever it says, 0 for an empty one, which cannot be parsed."""
    texts = [text.strip() for text in answers.texts]
    there = np.array([text != "" for text in texts], dtype=float)
    reasons = [None if text else "the answer is empty" for text in texts]
    return Scores(there, [{"answer": text} if text else None for text in texts], {"answered": there}, reasons)


REWARD = Reward("free_text", free_text)
