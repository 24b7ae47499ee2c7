"""Right or wrong on MathVerse, by rules alone."""

from __future__ import annotations

import re

from perceptune.core.boxed import same_choice
from perceptune.core.extraction import boxed_or_text, final_answer, option_letter
from perceptune.core.rewards.reward import Answers, Scores, right_or_wrong
from perceptune.core.verification import math_verify, mathruler, verdicts

CHOICE = re.compile(r"^\s*\(?([A-F])\)?\s*[:.)]\s*(.*)$", re.MULTILINE)
"""How `question_for_eval` lists its options: `A:20°`, one per line."""


def mathverse(answers: Answers) -> Scores:
    """Reward and component `accuracy`; the published scorer asks a language model twice, this is ours.

    Multiple choice: the option that `option_letter` finds, or that the final answer begins with. Otherwise the final answer is the
    truth by MathRuler or by math-verify.
    """
    found: list[str | None] = []
    open_ones: list[int] = []
    for i, (text, source) in enumerate(zip(answers.texts, answers.each_source(), strict=True)):
        if source.get("question_type") == "multi-choice":
            found.append(_chosen(text, str(source.get("question_for_eval", ""))))
        else:
            found.append(final_answer(text) or None)
            open_ones.append(i)
    targets = [(target or "").strip() for target in answers.targets]
    right = [answer is not None and answer == target for answer, target in zip(found, targets, strict=True)]
    undecided = [i for i in open_ones if found[i] is not None and not right[i]]
    decided = verdicts([(found[i] or "", targets[i]) for i in undecided], (mathruler, math_verify))
    for i, verdict in zip(undecided, decided, strict=True):
        right[i] = verdict.right
    return right_or_wrong(found, right, "no option is chosen, or no answer is given")


def _chosen(text: str, question: str) -> str | None:
    options = dict(CHOICE.findall(question)) or dict.fromkeys("ABCD", "")
    if letter := option_letter(boxed_or_text(text), options):
        return letter
    said = final_answer(text)
    return next((letter for letter in options if same_choice(said, letter)), None)
