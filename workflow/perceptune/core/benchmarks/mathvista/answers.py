"""Right or wrong on MathVista, by rules alone."""

from __future__ import annotations

from perceptune.core.answers.extraction import lettered, precision_of, same_typed, typed_answer
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong


def mathvista(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 where what `typed_answer` finds is the truth, see `same_typed`.

    Of the example's source it reads `choices` (where the question has any), `answer_type` and `precision` (where it has one).
    """
    found, right = [], []
    for text, target, source in zip(answers.texts, answers.targets, answers.each_source(), strict=True):
        kind = str(source.get("answer_type", "text"))
        answer = typed_answer(text, kind, lettered(source.get("choices") or ()))
        found.append(answer)
        right.append(same_typed(answer, target or "", kind, precision_of(source)))
    return right_or_wrong(found, right, "neither an option nor a value of the asked type")


REWARD = Reward(
    name="mathvista",
    summary="1 where the option, number or list of the answer is the truth, as MathVista compares them",
    score=mathvista,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
