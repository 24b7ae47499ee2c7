"""Right or wrong on LogicVista, by rules alone."""

from __future__ import annotations

from perceptune.core.answers.extraction import letter_set, letters_in
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong


def logicvista(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 where the letters of the final answer are those of the truth, as sets.

    The published scorer lets a language model find the letters; `letters_in` is ours.
    """
    found = [letters_in(text) for text in answers.texts]
    targets = [letter_set(target or "") for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option's letter in the final answer")


REWARD = Reward(
    name="logicvista",
    summary="1 where the letters of the final answer are those of the truth",
    score=logicvista,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
