"""Right or wrong on a yes/no question, by the words of the whole answer, as VLMEvalKit reads all its yes/no benchmarks."""

from __future__ import annotations

import re

import numpy as np

from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.core.rewards.yes_no import COMPONENTS, METRICS

MARKS = ';/[]"{}()=+\\_-><@`,?!'
DIGITS_WITH_COMMA = re.compile(r"\d,\d")
STOP = re.compile(r"\.(?!\d)")
STOPS = 32
"""Full stops taken out at most: the script passes a flag where the count belongs."""


def vlmevalkit_yes_no(answers: Answers) -> Scores:
    """Reward: 1 when the answer, as `said` reads it, is the true one; what says neither or both cannot be parsed.

    Components: `predicted_yes`, `target_yes`, `correct`.
    """
    parsed = [said(text) for text in answers.texts]
    true = [(target or "").lower() for target in answers.targets]
    right = np.array([p == t for p, t in zip(parsed, true, strict=True)], dtype=float)
    components = {
        "predicted_yes": np.array([p == "yes" for p in parsed], dtype=float),
        "target_yes": np.array([t == "yes" for t in true], dtype=float),
        "correct": right,
    }
    reasons = [None if p else "neither yes nor no, or both" for p in parsed]
    return Scores(right, [p and {"answer": p} for p in parsed], components, reasons)


def said(text: str) -> str | None:
    """`yes` or `no` where the words of the answer have one of the two and not the other, else None.

    A mark that touches a blank somewhere in the text vanishes, any other becomes a blank (all vanish in a text with digits around a
    comma); asterisks, colons and apostrophes stay, so `**Yes**` says nothing (source: VLMEvalKit's `YOrN_Extraction`, read there).
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
    summary="1 where the answer is the true yes or no, as VLMEvalKit reads it",
    score=vlmevalkit_yes_no,
    components=COMPONENTS,
    metrics=METRICS,
)
