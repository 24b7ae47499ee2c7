"""Boxed answers graded by mathematical equivalence with the ground truth."""

from __future__ import annotations

from perceptune.core.answers.math_equivalence import math_verify, mathruler
from perceptune.core.rewards.boxed_exact import METRICS, boxed_scores
from perceptune.core.rewards.reward import Answers, Reward, Scores


def boxed_math(answers: Answers) -> Scores:
    """The scores of `boxed_scores`, with accuracy by option letter, units, MathRuler, then math-verify."""
    return boxed_scores(answers, (mathruler, math_verify), quantities=True)


REWARD = Reward(
    name="boxed_math",
    summary="0.9 if the boxed answer is mathematically equivalent to the ground truth, plus 0.1 for the required format",
    score=boxed_math,
    components=("accuracy", "format"),
    metrics=METRICS,
    reads_reasoning=True,
    needs="answer",
)
