"""Reads answers to DynaMath by VLMEvalKit's rules, without its language model: the JSON reply that
the prompt requests, else the last box or the reply as it is.
"""

from __future__ import annotations

import json
import math

from perceptune.core.answers.extraction import boxed_or_text, from_last_box
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

TOLERANCE = 0.001
LETTERS = "ABCDE"


def dynamath_vlmevalkit(answers: Answers) -> Scores:
    """Reward and component `accuracy`, by the source's `answer_type`.

    `float` answers are right within 0.001, `multiple choice` by letter, and text if it is a
    substring of the ground truth, ignoring case. The JSON is the whole reply, the text from the
    last box on, or the content of the last box; otherwise the content of that box, or the reply, is
    the short answer. Unlike in VLMEvalKit, an empty answer does not match every ground truth.
    """
    found: list[str | float | None] = []
    right: list[bool] = []
    for text, target, source in zip(answers.texts, answers.targets, answers.each_source(), strict=True):
        kind, true = str(source.get("answer_type", "text")), (target or "").strip()
        reply = _preprocessed(boxed_or_text(text))
        forms = (_preprocessed(text), _preprocessed(from_last_box(text)), reply)
        read = [*(_parsed(short_answer(form), kind) for form in forms), _parsed(reply, kind)]
        found.append(next((answer for answer in read if answer is not None), None))
        right.append(_same(found[-1], true, kind, reply))
    return right_or_wrong(found, right, "no JSON with a `short answer` of the expected type")


def short_answer(reply: str) -> str | None:
    """The value of `short answer` in a JSON object; None if there is none."""
    try:
        value = json.loads(reply, strict=False)["short answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None if value is None else str(value)


def _preprocessed(text: str) -> str:
    start, end = text.find("{"), text.rfind("}")
    return (text[start : end + 1] if 0 <= start < end else text).replace("\\", "")


def _parsed(answer: str | None, kind: str) -> str | float | None:
    if answer is None or not answer.strip():
        return None
    if kind == "float":
        return _number(answer.strip().split(" ")[0])
    if kind == "multiple choice":
        if len(answer) == 1:
            return answer.upper()
        named = [letter for letter in LETTERS if letter in answer.upper()]
        return named[0] if len(named) == 1 else None
    return answer


def _number(text: str) -> float | None:
    """A decimal number, or a multiple of pi such as `2.5π`; None for anything else."""
    factor, pi, _ = text.partition("π")
    try:
        value = float(factor) * (math.pi if pi else 1.0)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _same(found: str | float | None, true: str, kind: str, reply: str) -> bool:
    if kind == "float":
        number = _number(true)
        return isinstance(found, float) and number is not None and abs(found - number) <= TOLERANCE
    if kind == "multiple choice":
        return found == true if found is not None else bool(true) and true in reply[:3].upper()
    return found is not None and str(found).strip().lower() in true.lower()


REWARD = Reward(
    name="dynamath_vlmevalkit",
    summary="1 if the short answer in the JSON reply, the last box or the reply is the ground truth (VLMEvalKit)",
    score=dynamath_vlmevalkit,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
