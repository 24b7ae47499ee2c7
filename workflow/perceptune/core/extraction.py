"""Letters, numbers and lists out of free text, by the rules of published scorers as far as they need no language model."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from perceptune.core.boxed import last_box

BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
"""Punctuation that may touch an option's letter (VLMEvalKit)."""
NEAR_END = 5
"""An option's letter counts among the last words of an answer only (VLMEvalKit)."""
ANNOUNCED = re.compile(r"\banswer\s*(?:is\s*:?|:)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
LIST = re.compile(r"\[[^\[\]]*\]")


def boxed_or_text(text: str) -> str:
    r"""What the last `\boxed{}` encloses, or the whole text, stripped: what CPPO hands to its scorers."""
    return last_box(text) or text.strip()


def final_answer(text: str) -> str:
    r"""The last `\boxed{}`, else what follows the last "answer is" or "answer:" on its line, else the last line with text.

    Ours: the published scorers leave this to a language model.
    """
    if box := last_box(text):
        return box
    announced = list(ANNOUNCED.finditer(text))
    rest = text[announced[-1].end() :] if announced else text
    lines = [line for line in rest.splitlines() if line.strip(" *.$")]
    return (lines[0 if announced else -1] if lines else "").strip(" *\t").removesuffix(".").strip(" *\t")


def lettered(choices: Sequence[Any]) -> dict[str, str]:
    """Option letter to its text."""
    return {letter: str(choice) for letter, choice in zip(ascii_uppercase, choices, strict=False)}


def option_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The option that an answer chooses, where rules can tell (VLMEvalKit's `can_infer`, of its later versions).

    The one letter of an option that stands alone among the last words; or else the one option whose text the answer repeats,
    unless it is more than twice as long as all options together.
    """
    words = answer.translate(BLANKED).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - NEAR_END:
        return named[0]
    said = answer.lower()
    if len(said) > 2 * sum(map(len, options.values())):
        return None
    repeated = [letter for letter, text in options.items() if text and text.lower() in said]
    return repeated[0] if len(repeated) == 1 else None


def letter_set(text: str) -> str | None:
    """One or several option letters, sorted, in lower case: `B, A` and `BA` become `ab`; None for anything else (LogicVista)."""
    bare = text.strip()
    parts = [bare] if re.fullmatch(r"[A-Za-z0-9]+", bare) else re.split(r"[\s,;]+", bare)
    if len(parts) > 1 and any(len(part) != 1 or not part.isalnum() for part in parts):
        return None
    compact = "".join(parts)
    return "".join(sorted(compact.lower())) if compact.isalnum() else None


def letters_in(text: str) -> str | None:
    """The capital letters that stand alone in a final answer, or that make up all of it, sorted, in lower case. Ours."""
    words = final_answer(text).translate(BLANKED).split()
    if len(words) == 1 and words[0].isalpha() and words[0].isupper():
        return letter_set(words[0])
    return "".join(sorted({word.lower() for word in words if word in ascii_uppercase})) or None


def number_in(text: str) -> float | None:
    """The last number of a text."""
    found = NUMBER.findall(text)
    try:
        return float(found[-1].replace(",", "")) if found else None
    except (ValueError, OverflowError):
        return None


def list_in(text: str) -> list[Any] | None:
    """The last list in brackets whose items are plain values."""
    found = LIST.findall(text)
    try:
        return list(ast.literal_eval(found[-1])) if found else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def typed_answer(text: str, kind: str, options: Mapping[str, str]) -> Any:
    """What a text answers to a question of MathVista: a letter where there are options, else an `integer`, `float`, `list`
    or text, as `kind` says; None where there is no such thing.
    """
    if options:
        return option_letter(boxed_or_text(text), options)
    if kind == "list":
        return list_in(text)
    said = final_answer(text)
    if kind in ("integer", "float"):
        number = number_in(said)
        return number_in(text) if number is None else number
    return said or None


def same_typed(found: Any, target: str, kind: str, precision: int) -> bool:
    """Whether that is the truth, as MathVista's own script compares: integers cut, floats rounded to `precision` places.

    Lists and text are compared by value, too; VLMEvalKit never accepts them.
    """
    if found is None:
        return False
    if isinstance(found, float):
        true = number_in(target)
        if true is None or abs(found) == float("inf"):
            return False
        return int(found) == int(true) if kind == "integer" else round(found, precision) == round(true, precision)
    if isinstance(found, list):
        return found == list_in(target)
    return str(found).strip().lower() == target.strip().lower()
