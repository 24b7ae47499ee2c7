"""Right or wrong on We-Math: the official rule for the letter of the option."""

from __future__ import annotations

import re

from perceptune.core.answers.boxed_answers import last_box
from perceptune.core.answers.extraction import from_last_box
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

LETTERS = "ABCDEFGH"
MARKS = re.compile(r"[><:.]")
ALONE = re.compile(rf"[\s><:.]*([{LETTERS}])(?!\w)")
"""What follows "Answer" where the rule finds a letter, and that is no word's beginning."""


def we_math(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 where the letter that `letter_of` reads is the truth."""
    found = [letter_of(text) for text in answers.texts]
    targets = [(target or "").strip() for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option's letter at the start of what follows the last `Answer`")


def letter_of(text: str) -> str | None:
    r"""The first character of what follows the last "Answer", without the marks `>`, `<`, `:` and `.`, where it is one of A to H.

    As officially, a text without "Answer" is read from its own beginning, so that "Because ..." chooses B. Ours, for prompts that
    ask for one: the last box goes before all that, and `(B)` chooses B there, unless an "Answer" with a letter follows it, as in
    the official template.
    """
    box = last_box(text)
    if not box:
        return _first(MARKS.sub("", text.split("Answer")[-1].strip()).strip())
    _, announced, rest = from_last_box(text).rpartition("Answer")
    template = ALONE.match(rest) if announced else None
    return template[1] if template else _first(box.removeprefix("("))


def _first(said: str) -> str | None:
    return said[0] if said and said[0] in LETTERS else None


REWARD = Reward(
    name="we_math",
    summary="1 where We-Math's rule reads the true option from the answer",
    score=we_math,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
