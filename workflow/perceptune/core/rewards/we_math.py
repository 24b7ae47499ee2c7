"""Right or wrong on We-Math: the official rule for the letter of the option."""

from __future__ import annotations

import re

from perceptune.core.boxed import last_box
from perceptune.core.rewards.reward import Answers, Scores, right_or_wrong

LETTERS = "ABCDEFGH"
MARKS = re.compile(r"[><:.]")


def we_math(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 where the letter that `letter_of` reads is the truth."""
    found = [letter_of(text) for text in answers.texts]
    targets = [(target or "").strip() for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option's letter at the start of what follows the last `Answer`")


def letter_of(text: str) -> str | None:
    r"""The first character of what follows the last "Answer", without the marks `>`, `<`, `:` and `.`, where it is one of A to H.

    As officially, a text without "Answer" is read from its own beginning, so that "Because ..." chooses B. Ours: the last box
    goes before all that, for answers to prompts that ask for one, and `(B)` chooses B there.
    """
    box = last_box(text)
    said = (box or "").removeprefix("(") or MARKS.sub("", text.split("Answer")[-1].strip()).strip()
    return said[0] if said and said[0] in LETTERS else None
