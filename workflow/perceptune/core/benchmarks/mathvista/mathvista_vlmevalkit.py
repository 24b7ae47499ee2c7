"""Compares answers to MathVista by VLMEvalKit's rules; our rules extract the answer where it asks a
language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.answers.extraction import boxed_or_text, lettered, option_letter, typed_answer, vlmevalkit_option
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong


def mathvista_vlmevalkit(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if the option chosen by `vlmevalkit_option` is the ground
    truth, or the number found by `typed_answer` equals it exactly.

    Lists and texts are never right, as in VLMEvalKit.
    """
    found: list[Any] = []
    right: list[bool] = []
    for text, target, source in zip(answers.texts, answers.targets, answers.each_source(), strict=True):
        options, kind = lettered(source.get("choices") or ()), str(source.get("answer_type", "text"))
        found.append(vlmevalkit_option(text, options) if options else typed_answer(text, kind, {}))
        same = found[-1] == target if options else _same_number(found[-1], target or "", kind)
        right.append(found[-1] is not None and same)
    return right_or_wrong(found, right, "neither an option nor a value of the expected type")


def settled_by_rules(text: str, target: str, source: Mapping[str, Any]) -> bool | None:
    """Whether an answer is right; None if VLMEvalKit asks a language model: no option is chosen, or
    the last box or the text is not the true number.
    """
    if options := lettered(source.get("choices") or ()):
        chosen = option_letter(boxed_or_text(text), options)
        return None if chosen is None else chosen == target
    return accepts_extraction(boxed_or_text(text), target, source) or None


def accepts_extraction(extraction: str, target: str, source: Mapping[str, Any]) -> bool:
    """Whether an answer that a language model extracted is right."""
    if options := lettered(source.get("choices") or ()):
        return option_letter(extraction, options) == target
    kind = str(source.get("answer_type", "text"))
    return _same_number(extraction, target, kind)


def _same_number(found: Any, target: str, kind: str) -> bool:
    if found is None or kind not in ("integer", "float"):
        return False
    number = int if kind == "integer" and isinstance(found, str) else float
    try:
        return number(found) == float(target)
    except ValueError:
        return False


REWARD = Reward(
    name="mathvista_vlmevalkit",
    summary="1 if the option or number in the answer is the ground truth, as VLMEvalKit compares them",
    score=mathvista_vlmevalkit,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
