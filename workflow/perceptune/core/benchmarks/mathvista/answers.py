"""Reads answers to MathVista by rules alone."""

from __future__ import annotations

from perceptune.core.answers.extraction import lettered, precision_of, same_typed, typed_answer
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong


def mathvista(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if the answer found by `typed_answer` equals the ground
    truth by `same_typed`.

    Uses the source columns `choices`, `answer_type` and `precision`; `choices` and `precision` may
    be empty.
    """
    found, right = [], []
    for text, target, source in zip(answers.texts, answers.targets, answers.each_source(), strict=True):
        kind = str(source.get("answer_type", "text"))
        answer = typed_answer(text, kind, lettered(source.get("choices") or ()))
        found.append(answer)
        right.append(same_typed(answer, target or "", kind, precision_of(source)))
    return right_or_wrong(found, right, "neither an option nor a value of the expected type")


REWARD = Reward(
    name="mathvista",
    summary="1 if the option, number or list in the answer is the ground truth, as MathVista compares them",
    score=mathvista,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
