"""Letters, numbers and lists out of free text, by the rules of published scorers as far as they need no language model."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from perceptune.core.answers.boxed_answers import BOX, last_box

BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
"""Punctuation that may touch an option's letter (VLMEvalKit)."""
QUOTED = BLANKED | str.maketrans(dict.fromkeys("$\"'“”‘’", " "))
"""And dollars and quotation marks (ours)."""
NEAR_END = 5
"""An option's letter counts among the last words of an answer only (VLMEvalKit)."""
ANNOUNCED = re.compile(r"\banswers?[\s*]*(?:\b(?:is|are)\b\s*:?|:)", re.IGNORECASE)
LIST = re.compile(r"\[[^\[\]]*\]")
WORD = re.compile(r"(?:(?:^\W*|[.:;!?]\s+)A|\bI)(?=['’][a-z]|\s+(?!(?:and|or|is|are)\b)[a-z])")
"""An "A" that begins a sentence, or any "I", and is no option, since a word follows."""
NUMBER = re.compile(
    r"(?:(?<![A-Za-z\d)}\]])[-+])?"  # no sign, but a dash or minus, behind a digit or letter
    r"(?:(?<![A-Za-z_\d])(?<!\d\.)\d[\d,]*\.?\d*|(?<![A-Za-z_\d])\.\d+)(?:[eE][-+]?\d+)?"
    r"(?:\s*/\s*\d[\d.,]*)?"  # a fraction is one number, and one that scorers cannot read
)
PLAIN = [
    (re.compile("\N{MINUS SIGN}"), "-"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!]"), ""),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2 "),
    (re.compile(r"\\[dt]?frac\s*(\d)(\d)"), r" \1/\2 "),
    (re.compile(r"\^\s*(?:\{[^{}]*\}|[-+]?\w+|\\[A-Za-z]+)"), ""),
    (re.compile(r"\\approx\b"), "≈"),
    (re.compile(r"\\[A-Za-z]+"), " "),
]
"""LaTeX around numbers: what it stands for, in order. Exponents, as those of units, are dropped."""
BEGINS = re.compile(r"[^A-Za-z\d]*\d")
EQUALS, STATES = re.compile("[=≈]"), re.compile(r"[=≈]|\b(?:is|are)\b")


def boxed_or_text(text: str) -> str:
    r"""What the last `\boxed{}` encloses, or the whole text, stripped: what CPPO hands to its scorers."""
    return last_box(text) or text.strip()


def from_last_box(text: str) -> str:
    r"""What stands in the last `\boxed{` and after it; nothing without one. A form that a protocol asks for goes before the box."""
    return text.rpartition(BOX)[2] if BOX in text else ""


def announced_answer(text: str) -> str | None:
    r"""The last `\boxed{}`, else what follows the last "answer is" or "answer:" on its line; None where there is neither. Ours."""
    if box := last_box(text):
        return box
    announced = list(ANNOUNCED.finditer(text))
    return _line(text[announced[-1].end() :], 0) if announced else None


def final_answer(text: str) -> str:
    """What `announced_answer` finds, else the last line with text. Ours: the published scorers leave this to a language model."""
    announced = announced_answer(text)
    return _line(text, -1) if announced is None else announced


def _line(text: str, place: int) -> str:
    lines = [line for line in text.splitlines() if line.strip(" *.$")]
    return (lines[place] if lines else "").strip(" *\t").removesuffix(".").strip(" *\t")


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
    """The capital letters that stand alone in a final answer, or that make up all of it, sorted, in lower case. Ours.

    The "I" in "I choose B" and the "A" in "A comparison shows D" are words, but not an "A" that begins an announced answer. One
    digit is an option, too, where it is all of the answer.
    """
    announced, said = announced_answer(text), final_answer(text)
    blanked = said.translate(QUOTED)
    words = blanked.split()
    if len(words) == 1 and re.fullmatch(r"[A-Z]+|\d", words[0]):
        return letter_set(words[0])
    no_options = {word.end() - 1 for word in WORD.finditer(said)}
    if announced is not None and said.startswith("A"):
        no_options.discard(0)
    letters = re.finditer(r"(?<!\S)[A-Z](?!\S)", blanked)
    return "".join(sorted({one[0].lower() for one in letters if one.start() not in no_options})) or None


def number_in(text: str) -> float | None:
    """The last number of a text; None, too, where that is a fraction."""
    found = _numbers(text)
    return _value(found[-1]) if found else None


def final_number(text: str) -> float | None:
    """The number of a final answer; None where there is none, or a fraction such as `1/2`, which published scorers cannot read.

    Of an answer that is announced or in a box the first one, behind the last equals sign, or "is" where the answer does not
    begin with a number: 5 in "5 (see step 2)", 7 in "3 + 4 = 7". Else the last number of the last line, or of the text. Ours.
    """
    announced = _plain(announced_answer(text) or "")
    parts = (EQUALS if BEGINS.match(announced) else STATES).split(announced)
    if stated := [numbers for part in parts if (numbers := NUMBER.findall(part))]:
        return _value(stated[-1][0])
    last = final_answer(text)
    return number_in(last if _numbers(last) else text)


def decimals(number: str) -> int | None:
    """How many decimal places a number is written with; None where it has no decimal point."""
    written = re.fullmatch(r"[-+]?[\d,]*\.(\d+)", number.strip())
    return len(written[1]) if written else None


def _plain(text: str) -> str:
    for pattern, plain in PLAIN:
        text = pattern.sub(plain, text)
    return text


def _numbers(text: str) -> list[str]:
    return NUMBER.findall(_plain(text))


def _value(number: str) -> float | None:
    try:
        return float(number.replace(",", ""))
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
    if kind in ("integer", "float"):
        return final_number(text)
    return final_answer(text) or None


def precision_of(source: Mapping[str, Any]) -> int | None:
    """The decimal places that MathVista asks for; None where a question does not say."""
    precision = source.get("precision")
    return None if precision is None else int(precision)


def same_typed(found: Any, target: str, kind: str, precision: int | None) -> bool:
    """Whether that is the truth, as MathVista's own script compares: integers cut, floats rounded to `precision` places.

    Without a precision floats are rounded to the places of the truth, or have to equal one that is written without any. Lists and
    text are compared by value, too; VLMEvalKit never accepts them, and it never rounds.
    """
    if found is None:
        return False
    if isinstance(found, float):
        true = number_in(target)
        if true is None or abs(found) == float("inf"):
            return False
        if kind == "integer":
            return int(found) == int(true)
        places = decimals(target) if precision is None else precision
        return found == true if places is None else round(found, places) == round(true, places)
    if isinstance(found, list):
        return found == list_in(target)
    return str(found).strip().lower() == target.strip().lower()
