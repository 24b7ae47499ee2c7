"""Right or wrong on a yes/no question, by POPE's own rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.core.rewards.yes_no import COMPONENTS, METRICS, parse_yes_no

NO = {"No", "not", "no"}


def pope(answers: Answers) -> Scores:
    """Reward: 1 when the answer, as `official_answer` reads it, is the true one. Every answer is a yes or a no.

    Components: `predicted_yes`, `target_yes`, `correct`, and `said`, 0 where the answer says neither and so counts as a yes.
    """
    predicted = [official_answer(text) for text in answers.texts]
    true = [(target or "").lower() for target in answers.targets]
    said = [word == "no" or says_yes(text) for word, text in zip(predicted, answers.texts, strict=True)]
    return yes_no_scores(predicted, true, [p == t for p, t in zip(predicted, true, strict=True)], said)


def official_answer(text: str) -> str:
    """`no` if `No`, `not` or `no` is among the words of the first sentence, else `yes`: "NO", "No!" and "" are a yes.

    Commas are dropped first, and words are what blanks separate (source: POPE's `evaluate.py`, read there). White space around
    the answer does not count: the published inference scripts strip it before they write the answer.
    """
    words = text.strip().split(".")[0].replace(",", "").split(" ")
    return "no" if NO.intersection(words) else "yes"


def says_yes(text: str) -> bool:
    """Whether the first sentence has the word "yes", and no "no"."""
    return parse_yes_no(text) == "yes"


def yes_no_scores(predicted: Sequence[str], true: Sequence[str], right: Sequence[bool], said: Sequence[bool]) -> Scores:
    """Verdicts of a rule that makes a yes or a no of every answer."""
    components = {
        "predicted_yes": np.array([p == "yes" for p in predicted], dtype=float),
        "target_yes": np.array([t == "yes" for t in true], dtype=float),
        "correct": np.array(right, dtype=float),
        "said": np.array(said, dtype=float),
    }
    return Scores(components["correct"], [{"answer": p} for p in predicted], components, [None] * len(predicted))


REWARD = Reward(
    name="pope",
    summary="1 where the answer is the true yes or no, as POPE's script reads it",
    score=pope,
    components=(*COMPONENTS, "said"),
    metrics=METRICS,
)
