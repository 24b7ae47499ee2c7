"""Reads answers to MathVerse by rules alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from perceptune.core.answers.boxed_answers import same_choice
from perceptune.core.answers.extraction import announced_answer, final_answer, without_stop
from perceptune.core.answers.math_equivalence import math_verify, mathruler, verdicts
from perceptune.core.answers.quantities import comparable
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

CHOICE = re.compile(r"^\s*\(?([A-F])\)?\s*[:.)]\s*(.*)$", re.MULTILINE)
"""How `question_for_eval` lists its options: `A:20°`, one per line."""
DECORATION = re.compile(r"\\[()\[\]]|[${}*#]|\\(?:text|mathrm|mathbf|textbf)\b")
NO_POINT = r"(?![\w'’])(?!\s*[-=+/^°<>_])"
"""What may follow a letter that is an option rather than the name of a point, an angle or a length.
"""
IS = r"(?:is|are|(?:must|would|should) be)"
NAMED = re.compile(
    r"(?<!\w)\((?P<bracketed>[A-F])\)"
    rf"|\b(?i:answers?|options?|choices?|letter|solution)\b[\s:]*(?:{IS}\b[\s:]*)?(?P<option>[A-F]){NO_POINT}"
    rf"|\b(?:choose|select|pick|it {IS}|it's|must be)\b[\s:]*(?P<chosen>[A-F]){NO_POINT}"
    r"|\b(?i:so|thus|hence|therefore)\b[\s,:]*(?P<last>[A-F])\W*$"
    rf"|\b(?P<correct>[A-F])\s+{IS}\s+(?:the\s+)?(?:correct|right|answer)\b"
)
"""An option in a sentence: `(B)`, `option B`, `I choose B`, `B is correct`."""
IN_FIGURES = (
    "angles?|points?|vertex|vertices|sides?|lines?|segments?|arcs?|circles?|triangles?|cent(?:er|re)|at|of|to|from"
)
LONE = re.compile(rf"(?P<of>(?:\b(?i:{IN_FIGURES})\b|[∠△⊙])\s*)?(?<![\w'’])(?P<letter>[A-F]){NO_POINT}")
"""A letter on its own, with a preceding word that would make it a name in a figure."""
LONGEST = 2
"""An answer that repeats an option's text may be at most this many times as long as all options
together (VLMEvalKit).
"""


def mathverse(answers: Answers) -> Scores:
    """Reward and component `accuracy`, by our rules; the published scorer calls a language model
    twice.

    Multiple-choice answers are right if `option_of` finds the true option, others if MathRuler or
    math-verify accepts the final answer and units do not differ, see `comparable`. A full stop at the
    end counts neither in the answer nor in the ground truth.
    """
    found: list[str | None] = []
    open_ones: list[int] = []
    for i, (text, source) in enumerate(zip(answers.texts, answers.each_source(), strict=True)):
        if source.get("question_type") == "multi-choice":
            found.append(option_of(text, str(source.get("question_for_eval", ""))))
        else:
            found.append(final_answer(text) or None)
            open_ones.append(i)
    targets = [without_stop(target or "") for target in answers.targets]
    right = [
        answer is not None and without_stop(answer) == target for answer, target in zip(found, targets, strict=True)
    ]
    pairs = {i: comparable(found[i] or "", targets[i]) for i in open_ones if found[i] is not None and not right[i]}
    undecided = {i: pair for i, pair in pairs.items() if pair is not None}
    decided = verdicts(list(undecided.values()), (mathruler, math_verify))
    for i, verdict in zip(undecided, decided, strict=True):
        right[i] = verdict.right
    return right_or_wrong(found, right, "no option is chosen, or no answer is given")


def option_of(text: str, question: str) -> str | None:
    """The option of `question_for_eval` that the final answer clearly chooses; None if a judge must
    decide.

    In this order: the letter that the answer begins with, as in `B. 40°`; the only letter that it
    names as an option or, for an answer that is announced or boxed, the only letter on its own; the
    only option whose text it repeats. `angle A` and `A = 40°` are not options.
    """
    options = dict(CHOICE.findall(question)) or dict.fromkeys("ABCD", "")
    answer = _bare(final_answer(text))
    if begins := next((letter for letter in options if same_choice(answer, letter)), None):
        return begins
    if announced_answer(text) is None:
        named = {next(filter(None, letters)) for letters in NAMED.findall(answer)}
    else:
        named = {found["letter"] for found in LONE.finditer(answer) if not found["of"]}
    if named:
        return next(iter(named & options.keys()), None) if len(named) == 1 else None
    return _repeated(answer.lower(), {letter: _bare(option).lower() for letter, option in options.items() if option})


def _bare(text: str) -> str:
    return DECORATION.sub("", text).replace(r"^\circ", "°").strip()


def _repeated(answer: str, options: Mapping[str, str]) -> str | None:
    """The only option that equals the answer or occurs in it as a whole: `2` occurs neither in
    `12` nor in `2√3`.
    """
    same = [letter for letter, option in options.items() if option == answer]
    if not same and len(answer) <= LONGEST * sum(map(len, options.values())):
        whole = {letter: rf"(?<![\w.√/-]){re.escape(option)}(?![\w√/^]|\.\d)" for letter, option in options.items()}
        same = [letter for letter, pattern in whole.items() if re.search(pattern, answer)]
    return same[0] if len(same) == 1 else None


REWARD = Reward(
    name="mathverse",
    summary="1 if the chosen option is the ground truth, or the final answer equals it mathematically",
    score=mathverse,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
