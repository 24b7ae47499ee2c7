"""Boxed answers, right where they are mathematically the same as the truth (`boxed_exact` and equivalent forms)."""

from __future__ import annotations

from perceptune.core.answers.math_equivalence import math_verify, mathruler
from perceptune.core.rewards.boxed_exact import METRICS, boxed_scores
from perceptune.core.rewards.reward import Answers, Reward, Scores


def boxed_math(answers: Answers) -> Scores:
    """Reward, components and parsed answers of `boxed_scores`, with accuracy by choice, MathRuler, then math-verify."""
    return boxed_scores(answers, (mathruler, math_verify), letters=True)


REWARD = Reward(
    name="boxed_math",
    summary="0.9 where the boxed answer is mathematically the truth, and 0.1 for the asked format",
    score=boxed_math,
    components=("accuracy", "format"),
    metrics=METRICS,
)
