"""Reads answers to MATH-Vision, and to Geometry3K, by VLMEvalKit's rules, without its language model."""

from __future__ import annotations

import ast

from perceptune.core.answers.boxed_answers import last_box
from perceptune.core.answers.extraction import final_answer, lettered, vlmevalkit_option
from perceptune.core.answers.math_equivalence import math_verify, verdicts
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

TOLERANCE = 1e-6


def mathvision_vlmevalkit(answers: Answers) -> Scores:
    """Reward and component `accuracy`.

    If the source has `choices`, the option chosen by `vlmevalkit_option` must be the ground truth.
    Otherwise the content of the last box, the whole text or the final answer (our rule instead of the
    language model) must equal it: as text ignoring case, as a number within 1e-6, or as LaTeX by
    math-verify, which rounds to 6 places and replaces latex2sympy with Python's `eval`.
    """
    sources = answers.each_source()
    found: list[str | None] = []
    right: list[bool] = []
    undecided: dict[int, tuple[str, str]] = {}
    for i, (text, target, source) in enumerate(zip(answers.texts, answers.targets, sources, strict=True)):
        true = (target or "").strip().lower()
        if options := lettered(source.get("choices") or ()):
            found.append(vlmevalkit_option(text, options))
            right.append(found[-1] is not None and found[-1].lower() == true)
            continue
        found.append(final_answer(text) or None)
        candidates = {(last_box(text) or text).strip().lower(), (found[-1] or "").lower()}
        right.append(any(one == true or _close(one, true) for one in candidates if one))
        if found[-1] and true and not right[-1]:
            undecided[i] = (found[-1].lower(), true)
    for i, verdict in zip(undecided, verdicts(list(undecided.values()), (math_verify,)), strict=True):
        right[i] = verdict.right
    return right_or_wrong(found, right, "no option is chosen, or no answer is given")


def _close(one: str, other: str) -> bool:
    try:
        return abs(float(ast.literal_eval(one)) - float(ast.literal_eval(other))) < TOLERANCE
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
        return False


REWARD = Reward(
    name="mathvision_vlmevalkit",
    summary="1 if the chosen option is the ground truth, or the answer equals it as text, number or LaTeX (VLMEvalKit)",
    score=mathvision_vlmevalkit,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
