"""Reads answers to DynaMath by the rules of its authors' script, which needs no language model.

Source: `evaluation/opensource_json_eval.py` of DynaMath/DynaMath at commit 65a346a.
"""

from __future__ import annotations

import json
import math

from perceptune.core.benchmarks.dynamath.dynamath_vlmevalkit import TOLERANCE, dynamath_vlmevalkit
from perceptune.core.rewards.reward import (
    ACCURACY_METRICS,
    VLMEVALKIT_COMPONENTS,
    Answers,
    Reward,
    Scores,
    right_or_wrong,
    with_vlmevalkit,
)


def dynamath(answers: Answers) -> Scores:
    """Reward and component `accuracy`, by the source's `answer_type`.

    `float`: the number before the first blank of `official_answer` is within 0.001. `multiple choice`:
    the answer is the letter or has it among its first three characters. Text: the ground truth is part
    of the answer. Case counts. Components of VLMEvalKit's rules: see `dynamath_vlmevalkit`.
    """
    found: list[str | None] = []
    right: list[bool] = []
    for text, target, source in zip(answers.texts, answers.targets, answers.each_source(), strict=True):
        found.append(official_answer(text))
        kind = str(source.get("answer_type", "text"))
        right.append(_same(found[-1], target, kind) if found[-1] is not None and target else False)
    official = right_or_wrong(found, right, "no `short answer`")
    return with_vlmevalkit(official, dynamath_vlmevalkit(answers))


def official_answer(response: str) -> str | None:
    """The `short answer` of the JSON object in a response, as text. Without JSON, the last line without
    its last character.

    Returns None for an empty answer, for JSON that is not an object, and for an object without
    `short answer`.
    """
    start, end = response.find("{"), response.rfind("}")
    reply = response[start : end + 1].replace("\\", "") if 0 <= start < end else response
    try:
        value = json.loads(reply, strict=False)
    except (ValueError, RecursionError):
        return reply.split("\n")[-1][:-1] or None
    answer = value.get("short answer") if isinstance(value, dict) else None
    return None if answer is None else str(answer) or None


def _same(answer: str, true: str, kind: str) -> bool:
    if kind == "float":
        factor, pi, _ = answer.split(" ")[0].partition("π")
        try:
            return abs(float(factor) * (math.pi if pi else 1) - float(true)) <= TOLERANCE
        except ValueError:
            return False
    if kind == "multiple choice":
        return answer == true if len(answer) == 1 else true in answer[:3]
    return true in answer


REWARD = Reward(
    name="dynamath",
    summary="1 if the short answer in the JSON reply is the ground truth, as DynaMath's script compares them",
    score=dynamath,
    components=VLMEVALKIT_COMPONENTS,
    metrics=ACCURACY_METRICS,
)
