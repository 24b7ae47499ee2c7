"""Compares answers to MathVista as its authors' script does; our rules extract the answer where it
asks a language model.

Source: `evaluation/extract_answer.py` and `evaluation/calculate_score.py` of lupantech/MathVista at
commit 2a249bb.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from perceptune.core.answers.extraction import decimals, lettered, typed_answer
from perceptune.core.benchmarks.mathvista.mathvista_vlmevalkit import mathvista_vlmevalkit
from perceptune.core.rewards.reward import (
    ACCURACY_METRICS,
    VLMEVALKIT_COMPONENTS,
    Answers,
    Reward,
    Scores,
    right_or_wrong,
    with_vlmevalkit,
)

IN_BRACKETS = re.compile(r"\(([a-zA-Z])\)")


def mathvista(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if the answer that needs no extraction, else the one found by
    `typed_answer`, is the ground truth by `same_as_published`.

    Uses the source columns `choices`, `answer_type` and `precision`; `choices` and `precision` may be
    empty. Components of VLMEvalKit's rules: see `mathvista_vlmevalkit`.
    """
    found: list[Any] = []
    right: list[bool] = []
    for text, target, source in zip(answers.texts, answers.targets, answers.each_source(), strict=True):
        options, kind = lettered(source.get("choices") or ()), str(source.get("answer_type", "text"))
        found.append(without_extraction(text, source) or typed_answer(text, kind, options))
        right.append(found[-1] is not None and same_as_published(str(found[-1]), target or "", source))
    official = right_or_wrong(found, right, "neither an option nor a value of the expected type")
    return with_vlmevalkit(official, mathvista_vlmevalkit(answers))


def without_extraction(text: str, source: Mapping[str, Any]) -> str | None:
    """The answer of a response for which the authors' script asks no language model: empty, the text
    of an option, or a number of the expected type; else None.

    The script's option `--quick_extract`, off by default, is left out.
    """
    if not text or text in (source.get("choices") or ()):
        return text
    number = {"integer": int, "float": float}.get(str(source.get("answer_type")))
    if number is not None:
        with suppress(ValueError):
            return str(number(text))
    return None


def same_as_published(extraction: str, target: str, source: Mapping[str, Any]) -> bool:
    """Whether an extracted answer is the ground truth by the rules of the authors' script.

    With choices: the letter in brackets, the letter alone, or the option whose text has the smallest
    Levenshtein distance to the answer; the first of several. Integers are truncated, floats rounded
    to `precision` places, or without a precision to the decimal places of the ground truth. Lists and
    texts must be equal as text.
    """
    if options := lettered(source.get("choices") or ()):
        return options[_nearest(extraction.strip(), options)] == options.get(target)
    kind, precision = str(source.get("answer_type", "text")), source.get("precision")
    try:
        if kind == "integer":
            return int(float(extraction)) == int(float(target))
        if kind == "float":
            places = decimals(target) if precision is None else int(precision)
            number, true = float(extraction), float(target)
            return number == true if places is None else round(number, places) == round(true, places)
    except (ValueError, OverflowError):
        return False
    return extraction == target


def _nearest(extraction: str, options: Mapping[str, str]) -> str:
    from rapidfuzz.distance import Levenshtein  # here, since the Snakefile also loads rewards

    bracketed = IN_BRACKETS.search(extraction)
    answer = bracketed[1].upper() if bracketed else extraction
    if answer in options:
        return answer
    return min(options, key=lambda letter: Levenshtein.distance(answer, options[letter]))


REWARD = Reward(
    name="mathvista",
    summary="1 if the option, number or list in the answer is the ground truth, as MathVista's script compares them",
    score=mathvista,
    components=VLMEVALKIT_COMPONENTS,
    metrics=ACCURACY_METRICS,
)
