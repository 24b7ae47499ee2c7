"""Reads answers to We-Math by the official rule for the option's letter."""

from __future__ import annotations

import re

from perceptune.core.answers.boxed_answers import last_box, without_text_commands
from perceptune.core.answers.extraction import from_last_box
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

LETTERS = "ABCDEFGH"
MARKS = re.compile(r"[><:.]")
ALONE = re.compile(rf"[\s><:.]*([{LETTERS}])(?!\w)")
"""A letter right after "Answer" that does not begin a word."""


def we_math(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if the letter read by `letter_of` is the ground truth."""
    found = [letter_of(text) for text in answers.texts]
    targets = [(target or "").strip() for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option's letter right after the last `Answer`")


def letter_of(text: str) -> str | None:
    r"""The first character after the last "Answer", ignoring `>`, `<`, `:` and `.`, if it is one of
    A to H; else None.

    As in the official script, a text without "Answer" is read from its beginning, so "Because ..."
    chooses B. We add, for prompts that request a box: the last box overrides this rule, and `(B)`
    or `\text{B}` in it chooses B, unless an "Answer" with a letter follows the box, as in the official template.
    """
    box = without_text_commands(last_box(text) or "").strip()
    if not box:
        return _first(MARKS.sub("", text.split("Answer")[-1].strip()).strip())
    _, announced, rest = from_last_box(text).rpartition("Answer")
    template = ALONE.match(rest) if announced else None
    return template[1] if template else _first(box.removeprefix("("))


def _first(answer: str) -> str | None:
    return answer[0] if answer and answer[0] in LETTERS else None


REWARD = Reward(
    name="we_math",
    summary="1 if We-Math's rule reads the true option from the answer",
    score=we_math,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
