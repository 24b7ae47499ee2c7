"""Reads answers to LogicVista by rules alone."""

from __future__ import annotations

from perceptune.core.answers.extraction import letter_set, letters_in
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong


def logicvista(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if the set of letters in the final answer is that of the
    ground truth.

    The published scorer extracts the letters with a language model; `letters_in` is our rule.
    """
    found = [letters_in(text) for text in answers.texts]
    targets = [letter_set(target or "") for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option's letter in the final answer")


REWARD = Reward(
    name="logicvista",
    summary="1 if the letters of the final answer are those of the ground truth",
    score=logicvista,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
