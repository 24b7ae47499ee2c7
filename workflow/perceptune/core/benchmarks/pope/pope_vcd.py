"""Reads yes/no answers by the rule of VCD's POPE scorer."""

from __future__ import annotations

from perceptune.core.answers.yes_no import vcd_answer
from perceptune.core.benchmarks.pope.answers import yes_no_scores
from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.core.rewards.yes_no import COMPONENTS, METRICS


def pope_vcd(answers: Answers) -> Scores:
    """Reward: 1 if the answer contains the true word anywhere. The components are those of `pope`."""
    true = [(target or "").lower() for target in answers.targets]
    predicted = [vcd_answer(text, target) for text, target in zip(answers.texts, true, strict=True)]
    said = ["yes" in text.lower() or "no" in text.lower() for text in answers.texts]
    return yes_no_scores(predicted, true, [p == t and t != "" for p, t in zip(predicted, true, strict=True)], said)


REWARD = Reward(
    name="pope_vcd",
    summary="1 if the answer is the true yes or no, as VCD's script reads it",
    score=pope_vcd,
    components=(*COMPONENTS, "said"),
    metrics=METRICS,
)
