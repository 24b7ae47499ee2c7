"""What a judge is asked about two answers to one question, and how its verdict is read.

`preference` asks which answer is better, for pairwise judging as in PerPO's figure 3. `grades` asks
for a grade from 1 to 3 for each answer, as in P2-DPO's appendix G.1, which calls a pair invalid if
its chosen answer has grade 1 or a lower grade than the rejected one. Neither paper publishes its
prompt, so both prompts are ours. The judge sees the answers as A and B and does not see the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perceptune.contracts.config import Rubric
from perceptune.contracts.seeds import derived_seed
from perceptune.core.benchmarks.benchmark import filled

FIELDS = ("question", "a", "b")
"""Placeholders that a custom prompt must contain. `{facts}` is optional."""
GRADES = (1, 2, 3)
LOWEST = GRADES[0]
OUTCOMES = ("win", "tie", "lose")
"""Of the first policy, or of the chosen answer of a pair."""
PREFERENCE = """You compare two answers to a question about an image. You cannot see the image{facts_follow}.

{facts}Question:
{question}

Answer A:
{a}

Answer B:
{b}

Which answer is better? What it says about the image must be right; between answers that are equally right, prefer the one that \
answers the question more completely and clearly. The order of the answers and their length alone mean nothing.

Reply with one word and nothing else: A, B or tie."""
BY_GRADES = """You grade two answers to a question about an image. You cannot see the image{facts_follow}.

{facts}Question:
{question}

Answer A:
{a}

Answer B:
{b}

Grade each answer on its own; the order of the answers and their length alone mean nothing:
3: right and answers the question
2: partly right, or right but incomplete
1: wrong, states something that the image does not show, or does not answer the question

Reply with two lines and nothing else:
A: grade
B: grade"""
_LABEL = r"(?:(?:final|better|best|answer|response|assistant|verdict|winner|choice)\b\W*(?:is\b\W*)?)*"
_REASON = r"\s*[,;:\u2013-]+\s*(?:since|because|as|for|due)\b"
_PRAISE = r"\s+is\s+(?:(?:clearly|much|slightly|the|a|bit|far)\s+)*(?:better|best|more|preferred|preferable)\b"
_PREFERRED = re.compile(
    rf"\W*{_LABEL}(?:(?P<letter>A|B|C)(?=[\])*\"']*(?:\W*$|[.!]|{_REASON}|{_PRAISE}))"
    rf"|(?:a\s+)?(?P<tie>tie|draw)(?=[\])*\"']*(?:\W*$|[.!]|{_REASON})))",
    re.I,
)
"""At the start of the first line. What follows must end the verdict, begin a reason, or praise the answer:
`A is wrong` and `A, B or tie` are no preference. `[[C]]` is a tie in MT-Bench's form."""
_GRADE = re.compile(r"^\W*(?:(?:answer|grade|score)\W+(?:of\W+)?)?(A|B)\W*[:=]\W*?(-?\d+(?:\.\d+)?)", re.I | re.M)


@dataclass(frozen=True)
class Pair:
    """Two answers to one question."""

    item: str
    """Identifies the pair within its comparison."""
    question: str
    one: str
    """The answer of the first policy, or the chosen one."""
    other: str
    facts: Mapping[str, str]
    """Heading to text: what the judge is told besides the question, such as people's answers."""


@dataclass(frozen=True)
class Reading:
    """What a verdict says."""

    outcome: str
    """One of `OUTCOMES`."""
    grades: tuple[int, int] | None = None
    """Of the first policy's and the other's answer."""


def one_comes_first(seed: int, item: str) -> bool:
    """Whether a pair's first answer is shown as A; a coin flip that depends only on seed and pair."""
    return derived_seed("comparison", seed, item) % 2 == 0


def messages(rubric: Rubric, prompt: str | None, pair: Pair, *, one_first: bool) -> list[dict[str, str]]:
    """The chat about one pair; `prompt` replaces the rubric's own."""
    known = [(heading, text) for heading, text in pair.facts.items() if text.strip()]
    first, second = (pair.one, pair.other) if one_first else (pair.other, pair.one)
    fields = {
        "facts": "".join(f"{heading}:\n{text}\n\n" for heading, text in known),
        "facts_follow": ", but you know something about it" if known else "",
        "question": pair.question,
        "a": first,
        "b": second,
    }
    return [{"role": "user", "content": filled(prompt or RUBRICS[rubric].prompt, fields)}]


def _preference(verdict: str, one_first: bool) -> Reading | None:
    lines = verdict.strip().splitlines()
    found = _PREFERRED.match(lines[0]) if lines else None
    if found is None:
        return None
    letter = (found["letter"] or "C").upper()
    if letter == "C":
        return Reading("tie")
    return Reading("win" if (letter == "A") == one_first else "lose")


def _grades(verdict: str, one_first: bool) -> Reading | None:
    found: dict[str, set[float]] = {"A": set(), "B": set()}
    for letter, grade in _GRADE.findall(verdict):
        found[letter.upper()].add(float(grade))
    if any(len(grades) != 1 or not grades <= set(GRADES) for grades in found.values()):
        return None
    first, second = (int(*found[letter]) for letter in "AB")
    one, other = (first, second) if one_first else (second, first)
    return Reading("win" if one > other else "lose" if one < other else "tie", (one, other))


def is_invalid(reading: Reading) -> bool:
    """P2-DPO's rule for a pair: its chosen answer has the lowest grade, or a lower one than the
    rejected answer. Without grades: the rejected answer is preferred.
    """
    return reading.outcome == "lose" or (reading.grades is not None and reading.grades[0] == LOWEST)


@dataclass(frozen=True)
class _Rubric:
    prompt: str
    max_tokens: int
    read: Callable[[str, bool], Reading | None]


RUBRICS: Mapping[Rubric, _Rubric] = {
    "preference": _Rubric(PREFERENCE, 16, _preference),
    "grades": _Rubric(BY_GRADES, 32, _grades),
}


def reading_of(rubric: Rubric, verdict: str | None, *, one_first: bool) -> Reading | None:
    """What a verdict says; None if it cannot be read: another form, a grade that does not exist, or
    two different grades for one answer.
    """
    return RUBRICS[rubric].read(verdict or "", one_first)
