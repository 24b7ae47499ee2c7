"""Right or wrong on MMMU-Pro: its own rule for the letter of the option."""

from __future__ import annotations

from collections.abc import Mapping

from perceptune.core.answers.boxed_answers import last_box
from perceptune.core.answers.extraction import from_last_box, lettered
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores, right_or_wrong

LETTERS = "ABCDEFGHIJ"
LONG = 5
"""Words above which an answer may name an option by its text."""


def mmmu_pro(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 where the option that `option_of` reads is the truth."""
    found = []
    for text, source in zip(answers.texts, answers.each_source(), strict=True):
        found.append(option_of(text, lettered(source.get("choices") or [""] * len(LETTERS))))
    targets = [(target or "").strip() for target in answers.targets]
    right = [a is not None and a == t for a, t in zip(found, targets, strict=True)]
    return right_or_wrong(found, right, "no option is named")


def option_of(text: str, options: Mapping[str, str]) -> str | None:
    r"""The one option whose letter stands in what follows the last "Answer:"; else the last one that stands as `(A)`, else as `A `
    or `A.`; else, in an answer of more than five words, the last one whose text it repeats.

    Unlike there, an answer without any is wrong and not a random option. Ours, for prompts that ask for one: the last `\boxed{}`
    goes before all that, unless an "Answer:" with one letter follows it, as the official prompt asks.
    """
    box = last_box(text)
    _, announced, rest = (from_last_box(text) if box else text).rpartition("Answer:")
    named = [letter for letter in options if announced and letter in rest]
    if len(named) == 1:
        return named[0]
    said = box or text
    for mark in ",.!?;:'":
        said = said.strip(mark)
    said = f" {said} "
    for before, after in (("(", ")"), ("", " "), ("", ".")):
        named = [letter for letter in options if f"{before}{letter}{after}" in said]
        if named:
            place = ("(", ")") if before else (" ", " ")
            return named[0] if len(named) == 1 else max(named, key=lambda x: said.rfind(f"{place[0]}{x}{place[1]}"))
    if len(said.split()) <= LONG:
        return None
    lowered = said.lower()
    repeated = [letter for letter, option in options.items() if option and option.lower() in lowered]
    return max(repeated, key=lambda x: lowered.rfind(options[x].lower())) if repeated else None


REWARD = Reward(
    name="mmmu_pro",
    summary="1 where MMMU-Pro's rule reads the true option from the answer",
    score=mmmu_pro,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
