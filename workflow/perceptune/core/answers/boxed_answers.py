r"""Parsing of responses in the format of PAPO and CPPO: `<think>...</think> ... \boxed{answer}`."""

from __future__ import annotations

import re

BOX = r"\boxed{"
OPTION = re.compile(r"\(?([A-Z])\)?\.?")
"""A target that is an option letter."""
CHOSEN = re.compile(r"(?:\\(?:text(?:bf|rm)?|math(?:rm|bf))\{)?(?:\(([A-Za-z])\)|([A-Za-z])[.:)]|([A-Za-z])\}?$)")
"""The beginning of an answer that chooses an option: `(A)`, `A.`, `A:`, `A)`, or the letter alone."""


def same_choice(answer: str, target: str) -> bool | None:
    """Whether an answer chooses the target's letter; None without option letters in both."""
    option, chosen = OPTION.fullmatch(target), CHOSEN.match(answer)
    if option is None or chosen is None:
        return None
    letter = next(group for group in chosen.groups() if group)
    return letter.upper() == option[1]


def truth_of(target: str | None) -> str:
    r"""The target, without its `\boxed{}` if it has one (ViRL39K)."""
    text = (target or "").strip()
    return last_box(text) or text


TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|rm)?|math(?:rm|bf))\s*\{([^{}]*)\}")


def without_text_commands(text: str) -> str:
    r"""The text with the content of `\text{}`, `\mathrm{}` and the like in their place."""
    return TEXT_COMMAND.sub(r"\1", text)


def without_blanks(text: str) -> str:
    """The text without whitespace around `<`, `>` and `/`: `1 / 2` becomes `1/2`, in linear time."""
    return re.sub(r"(?<=[<>/])\s++", "", re.sub(r"(?<!\s)\s++(?=[<>/])", "", text))


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{}`, stripped; None if missing or unbalanced.

    Equals MathRuler's `extract_boxed_content`, except that MathRuler returns the string "None" in
    these cases and so rewards a target of that name.
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
    r"""Whether the text is `<think>...</think>...\boxed{...}...`; any part may be empty.

    Matches the same texts as the regular expression, but in linear time: the expression backtracks
    over every `</think>`.
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
