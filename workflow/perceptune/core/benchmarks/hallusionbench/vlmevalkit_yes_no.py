"""Reads yes/no answers by the words of the whole text, as VLMEvalKit does for all its yes/no
benchmarks.
"""

from __future__ import annotations

import re

import numpy as np

from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.core.rewards.yes_no import COMPONENTS, METRICS

MARKS = ';/[]"{}()=+\\_-><@`,?!'
DIGITS_WITH_COMMA = re.compile(r"\d,\d")
STOP = re.compile(r"(?<!\d)\.(?!\d)")
STOPS = 32
"""Maximum number of full stops removed: VLMEvalKit passes a regex flag as the count."""


def vlmevalkit_yes_no(answers: Answers) -> Scores:
    """Reward: 1 if the answer read by `yes_or_no` is the ground truth; a text with neither word or
    both is unparsable.

    Components: `predicted_yes`, `target_yes`, `correct`.
    """
    parsed = [yes_or_no(text) for text in answers.texts]
    true = [(target or "").lower() for target in answers.targets]
    right = np.array([p == t for p, t in zip(parsed, true, strict=True)], dtype=float)
    components = {
        "predicted_yes": np.array([p == "yes" for p in parsed], dtype=float),
        "target_yes": np.array([t == "yes" for t in true], dtype=float),
        "correct": right,
    }
    reasons = [None if p else "neither yes nor no, or both" for p in parsed]
    return Scores(right, [p and {"answer": p} for p in parsed], components, reasons)


def yes_or_no(text: str) -> str | None:
    """`yes` or `no` if the text contains exactly one of these two words, else None, as in
    VLMEvalKit's `YOrN_Extraction`.

    A punctuation mark is removed if it is next to a space anywhere in the text, and otherwise
    replaced by a space; all are removed if the text has digits around a comma. Of full stops, the first
    32 that touch no digit are removed (since May 2025; before, also those after a digit). Asterisks, colons
    and apostrophes stay, so `**Yes**` cannot be read.
    """
    lower = text.lower()
    bare = lower
    for mark in MARKS:
        vanishes = f"{mark} " in lower or f" {mark}" in lower or DIGITS_WITH_COMMA.search(lower)
        bare = bare.replace(mark, "" if vanishes else " ")
    words = set(STOP.sub("", bare, count=STOPS).split())
    found = words & {"yes", "no"}
    return found.pop() if len(found) == 1 else None


REWARD = Reward(
    name="vlmevalkit_yes_no",
    summary="1 if the answer is the true yes or no, as VLMEvalKit reads it",
    score=vlmevalkit_yes_no,
    components=COMPONENTS,
    metrics=METRICS,
)
