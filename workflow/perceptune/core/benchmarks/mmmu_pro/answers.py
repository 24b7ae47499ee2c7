"""Reads answers to MMMU-Pro by the official rule for the option's letter."""

from __future__ import annotations

from collections.abc import Mapping

from perceptune.core.answers.boxed_answers import last_box, without_text_commands
from perceptune.core.answers.extraction import from_last_box, lettered
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

LETTERS = "ABCDEFGHIJ"
LONG = 5
"""An answer with more words than this may name an option by its text."""


def mmmu_pro(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if the option read by `option_of` is the ground truth."""
    found = []
    for text, source in zip(answers.texts, answers.each_source(), strict=True):
        found.append(option_of(text, lettered(source.get("choices") or [""] * len(LETTERS))))
    targets = [(target or "").strip() for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option is named")


def option_of(text: str, options: Mapping[str, str]) -> str | None:
    r"""The option that an answer chooses, or None.

    In this order: the only option whose letter follows the last "Answer:"; the last one written as
    `(A)`, then as `A ` or `A.`; in an answer of more than five words, the last one whose text it
    repeats. Unlike in the official script, an answer without an option is wrong instead of a random
    option. We add, for prompts that request a box: the last `\boxed{}` overrides these rules,
    unless an "Answer:" with one letter follows it, as the official prompt requests. `\text{B}` in it is
    `B`.
    """
    box = without_text_commands(last_box(text) or "").strip()
    _, announced, rest = (from_last_box(text) if box else text).rpartition("Answer:")
    named = [letter for letter in options if announced and letter in rest]
    if len(named) == 1:
        return named[0]
    answer = box or text
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    answer = f" {answer} "
    for before, after in (("(", ")"), ("", " "), ("", ".")):
        named = [letter for letter in options if f"{before}{letter}{after}" in answer]
        if named:
            place = ("(", ")") if before else (" ", " ")
            return named[0] if len(named) == 1 else max(named, key=lambda x: answer.rfind(f"{place[0]}{x}{place[1]}"))
    if len(answer.split()) <= LONG:
        return None
    lowered = answer.lower()
    repeated = [letter for letter, option in options.items() if option and option.lower() in lowered]
    return max(repeated, key=lambda x: lowered.rfind(options[x].lower())) if repeated else None


REWARD = Reward(
    name="mmmu_pro",
    summary="1 if MMMU-Pro's rule reads the true option from the answer",
    score=mmmu_pro,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
