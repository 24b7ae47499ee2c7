"""Extract letters, numbers and lists from free text by rules, without a language model.

The rules are those of published scorers where the docstring names one, and perceptune's otherwise.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from perceptune.core.answers.boxed_answers import BOX, last_box, without_text_commands

BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
"""Punctuation that may touch an option letter (VLMEvalKit)."""
QUOTED = BLANKED | str.maketrans(dict.fromkeys("$\"'“”‘’", " "))
"""`BLANKED` plus dollar signs and quotation marks."""
NEAR_END = 5
"""An option letter counts only among this many last words of an answer (VLMEvalKit)."""
ANNOUNCED = re.compile(r"\banswers?[\s*]*(?:\b(?:is|are)\b\s*:?|:)", re.IGNORECASE)
LIST = re.compile(r"\[[^\[\]]*\]")
WORD = re.compile(r"(?:(?:^\W*|[.:;!?]\s+)A|\bI)(?=['’][a-z]|\s+(?!(?:and|or|is|are)\b)[a-z])")
"""An "A" that begins a sentence, or any "I", followed by a word: a word itself, not an option."""
NUMBER = re.compile(
    r"(?:(?<![A-Za-z\d)}\]])[-+])?"  # after a digit or letter it is a dash or a minus, not a sign
    r"(?:(?<![A-Za-z_\d])(?<!\d\.)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)\.?\d*|(?<![A-Za-z_\d])\.\d+)(?:[eE][-+]?\d+)?"
    r"(?:\s*/\s*\d[\d.,]*)?"  # a fraction is one number, which the published scorers cannot parse
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
"""LaTeX around numbers and its plain form, applied in order. Exponents (of units) are dropped."""
BEGINS = re.compile(r"[^A-Za-z\d]*\d")
EQUALS, STATES = re.compile("[=≈]"), re.compile(r"[=≈]|\b(?:is|are)\b")


def boxed_or_text(text: str) -> str:
    r"""The content of the last `\boxed{}`, or the whole text: the input of CPPO's scorers."""
    return last_box(text) or text.strip()


def from_last_box(text: str) -> str:
    r"""The text from the content of the last `\boxed{` to the end; empty without one.

    A fallback of protocols that require another answer format, which takes precedence.
    """
    return text.rpartition(BOX)[2] if BOX in text else ""


def announced_answer(text: str) -> str | None:
    r"""The last `\boxed{}`, else the rest of the line after the last "answer is" or "answer:".

    None if there is neither. This rule is perceptune's.
    """
    if box := last_box(text):
        return box
    announced = list(ANNOUNCED.finditer(text))
    return _line(text[announced[-1].end() :], 0) if announced else None


def final_answer(text: str) -> str:
    """The result of `announced_answer`, else the last line with text.

    This rule is perceptune's: the published scorers use a language model here.
    """
    announced = announced_answer(text)
    return _line(text, -1) if announced is None else announced


def _line(text: str, place: int) -> str:
    lines = [line for line in text.splitlines() if line.strip(" *.$")]
    return without_stop((lines[place] if lines else "").strip(" *\t")).strip(" *\t")


def without_stop(text: str) -> str:
    """The text without surrounding white space and one full stop at its end."""
    return text.strip().removesuffix(".").strip()


def lettered(choices: Sequence[Any]) -> dict[str, str]:
    """Option letter to its text."""
    return {letter: str(choice) for letter, choice in zip(ascii_uppercase, choices, strict=False)}


def option_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer chooses; None if undecided.

    Source: VLMEvalKit's `can_infer` from July 2025 (pull request 1175) to June 2026. It is the only
    option letter that stands alone among the last words; otherwise the only option whose text the
    answer repeats, unless the answer is more than twice as long as all options together.
    """
    words = answer.translate(BLANKED).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - NEAR_END:
        return named[0]
    lowered = answer.lower()
    if len(lowered) > 2 * sum(map(len, options.values())):
        return None
    repeated = [letter for letter, text in options.items() if text and text.lower() in lowered]
    return repeated[0] if len(repeated) == 1 else None


def chosen_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that a whole answer chooses; None if undecided.

    In this order: the announced answer is a letter, or equals the text of one option; `option_letter`
    of the last box or the text; of the announced answer, so that "(A) 9, (B) 12. The answer is (A)."
    is decided; the only option that equals the last line. All but the second rule are perceptune's;
    VLMEvalKit has looked for an announced letter since June 2026, and otherwise asks a language model.
    """
    announced = announced_answer(text)
    if announced is not None:
        letter = without_text_commands(announced).translate(QUOTED).strip().upper()
        if found := letter if letter in options else _equal_option(announced, options):
            return found
    found = option_letter(boxed_or_text(text), options)
    if found is None and announced is not None:
        found = option_letter(announced, options)
    return found or _equal_option(final_answer(text), options)


def vlmevalkit_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that VLMEvalKit finds in the last box or the text, see `option_letter`; where it asks
    a language model, `chosen_option` instead.
    """
    return option_letter(boxed_or_text(text), options) or chosen_option(text, options)


def _equal_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The only option whose text equals the answer, apart from blanks, case and dollar signs."""
    plain = _plain_option(answer)
    same = [letter for letter, option in options.items() if plain and _plain_option(option) == plain]
    return same[0] if len(same) == 1 else None


def _plain_option(option: str) -> str:
    return "".join(option.split()).strip("$.").lower()


def letter_set(text: str) -> str | None:
    """Sorted lower-case option letters: `ab` for `B, A` and `BA`; else None (LogicVista)."""
    bare = text.strip()
    parts = [bare] if re.fullmatch(r"[A-Za-z0-9]+", bare) else re.split(r"[\s,;]+", bare)
    if len(parts) > 1 and any(len(part) != 1 or not part.isalnum() for part in parts):
        return None
    compact = "".join(parts)
    return "".join(sorted(compact.lower())) if compact.isalnum() else None


def letters_in(text: str) -> str | None:
    """The stand-alone capital letters of a final answer, or all of it; sorted, lower case.

    The "I" in "I choose B" and the "A" in "A comparison shows D" are words; an "A" that begins an
    announced answer is an option. A single digit is an option if it is the whole answer. This rule
    is perceptune's.
    """
    announced, final = announced_answer(text), final_answer(text)
    blanked = final.translate(QUOTED)
    words = blanked.split()
    if len(words) == 1 and re.fullmatch(r"[A-Z]+|\d", words[0]):
        return letter_set(words[0])
    no_options = {word.end() - 1 for word in WORD.finditer(final)}
    if announced is not None and final.startswith("A"):
        no_options.discard(0)
    letters = re.finditer(r"(?<!\S)[A-Z](?!\S)", blanked)
    return "".join(sorted({one[0].lower() for one in letters if one.start() not in no_options})) or None


def number_in(text: str) -> float | None:
    """The last number of a text; None if there is none or it is a fraction."""
    found = _numbers(text)
    return _value(found[-1]) if found else None


def final_number(text: str) -> float | None:
    """The number of a final answer; None if there is none or it is a fraction such as `1/2`.

    Published scorers cannot parse fractions. For an announced or boxed answer, it is the first
    number after the last equals sign (or after the last "is" if the answer does not begin with a
    number): 5 in "5 (see step 2)", 7 in "3 + 4 = 7". Otherwise it is the last number of the last
    line, or of the text. This rule is perceptune's.
    """
    announced = _plain(announced_answer(text) or "")
    parts = (EQUALS if BEGINS.match(announced) else STATES).split(announced)
    if stated := [numbers for part in parts if (numbers := NUMBER.findall(part))]:
        return _value(stated[-1][0])
    last = final_answer(text)
    return number_in(last if _numbers(last) else text)


def decimals(number: str) -> int | None:
    """The number of decimal places; None without a decimal point."""
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
    """The last bracketed list in a text if it is a Python literal; None otherwise."""
    found = LIST.findall(text)
    try:
        return list(ast.literal_eval(found[-1])) if found else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def typed_answer(text: str, kind: str, options: Mapping[str, str]) -> Any:
    """The answer to a MathVista question: an option letter, or without options a `kind`.

    `kind` is `integer`, `float`, `list` or `text`. None if the text has no such value.
    """
    if options:
        return chosen_option(text, options)
    if kind == "list":
        return list_in(text)
    if kind in ("integer", "float"):
        return final_number(text)
    return final_answer(text) or None
