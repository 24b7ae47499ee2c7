"""Reads yes/no answers by POPE's official rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.core.rewards.yes_no import COMPONENTS, METRICS, parse_yes_no

NO = {"No", "not", "no"}


def pope(answers: Answers) -> Scores:
    """Reward: 1 if the answer read by `official_answer`, which is always yes or no, is the ground
    truth.

    Components: `predicted_yes`, `target_yes`, `correct`, and `said`, which is 0 if the answer
    contains neither word and therefore counts as a yes.
    """
    predicted = [official_answer(text) for text in answers.texts]
    true = [(target or "").lower() for target in answers.targets]
    said = [word == "no" or says_yes(text) for word, text in zip(predicted, answers.texts, strict=True)]
    return yes_no_scores(predicted, true, [p == t for p, t in zip(predicted, true, strict=True)], said)


def official_answer(text: str) -> str:
    """`no` if `No`, `not` or `no` is a word of the first sentence, else `yes`, so "NO", "No!" and
    "" are a yes.

    As in POPE's `evaluate.py`, commas are removed first and words are separated by spaces.
    Surrounding white space is ignored, because the published inference scripts strip it before they
    write answers.
    """
    words = text.strip().split(".")[0].replace(",", "").split(" ")
    return "no" if NO.intersection(words) else "yes"


def says_yes(text: str) -> bool:
    """Whether the first sentence has the word "yes" and not "no"."""
    return parse_yes_no(text) == "yes"


def yes_no_scores(predicted: Sequence[str], true: Sequence[str], right: Sequence[bool], said: Sequence[bool]) -> Scores:
    """Scores of a rule that reads every answer as yes or no; all arguments have one entry per
    answer.
    """
    components = {
        "predicted_yes": np.array([p == "yes" for p in predicted], dtype=float),
        "target_yes": np.array([t == "yes" for t in true], dtype=float),
        "correct": np.array(right, dtype=float),
        "said": np.array(said, dtype=float),
    }
    return Scores(components["correct"], [{"answer": p} for p in predicted], components, [None] * len(predicted))


REWARD = Reward(
    name="pope",
    summary="1 if the answer is the true yes or no, as POPE's script reads it",
    score=pope,
    components=(*COMPONENTS, "said"),
    metrics=METRICS,
)
