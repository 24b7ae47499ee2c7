r"""Reading responses of the form `<think>...</think> ... \boxed{answer}`, which PAPO and CPPO ask for (dossier a.1)."""

from __future__ import annotations

import re

BOX = r"\boxed{"
OPTION = re.compile(r"\(?([A-Z])\)?\.?")
"""A target that is one of several choices."""
CHOSEN = re.compile(r"(?:\\text(?:bf)?\{)?(?:\(([A-Za-z])\)|([A-Za-z])[.:)]|([A-Za-z])\}?$)")
"""How an answer that chooses begins: `(A)`, `A.`, `A:`, `A)`, or it is the letter alone."""


def same_choice(answer: str, target: str) -> bool | None:
    """Whether an answer chooses the letter that is the target; None where the target is no letter or the answer has none."""
    option, chosen = OPTION.fullmatch(target), CHOSEN.match(answer)
    if option is None or chosen is None:
        return None
    letter = next(group for group in chosen.groups() if group)
    return letter.upper() == option[1]


def truth_of(target: str | None) -> str:
    """The target; the content of its box where it is written as one (ViRL39K)."""
    text = (target or "").strip()
    return last_box(text) or text


def without_blanks(text: str) -> str:
    """The text without white space around `<`, `>` and `/`: `1 / 2` becomes `1/2`, in time linear in its length."""
    return re.sub(r"(?<=[<>/])\s++", "", re.sub(r"(?<!\s)\s++(?=[<>/])", "", text))


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{` encloses, stripped; None where there is none or its braces are not balanced.

    MathRuler's `extract_boxed_content`, which gives the text `None` in these cases and thereby rewards a target of that name.
    """
    start = text.rfind(BOX)
    if start < 0:
        return None
    depth, start = 0, start + len(BOX)
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth < 0:
            return text[start : start + brace.start()].strip()
    return None


def has_format(text: str) -> bool:
    r"""Whether all of the text is `<think>...</think>...\boxed{...}...`, with anything, or nothing, for the dots.

    What the regular expression of that form matches, in time linear in the length: it backtracks over every `</think>`.
    """
    position = 0
    if not text.startswith("<think>"):
        return False
    for part in ("<think>", "</think>", BOX, "}"):
        position = text.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True
