"""Boxed answers, right by MathRuler alone: the training reward of PAPO and CPPO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.boxed import has_format, last_box, same_choice, truth_of, without_blanks
from perceptune.core.metrics import mean
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, RewardMetric, Scores
from perceptune.core.verification import Pair, Rule, Verdict, mathruler, verdicts

ACCURACY, FORMAT = 0.9, 0.1
"""Weights of the two parts of the reward."""


def boxed_exact(answers: Answers) -> Scores:
    """Reward, components and parsed answers of `boxed_scores`, with accuracy by MathRuler: `4/2` is not `2`, `A. 12` not `A`."""
    return boxed_scores(answers, (mathruler,), letters=False)


def boxed_scores(answers: Answers, rules: Sequence[Rule], *, letters: bool) -> Scores:
    r"""Rewards 0.9 x accuracy + 0.1 x format, with both as components `accuracy` and `format`, 0 or 1.

    The answer is the content of the last `\boxed{}`, the truth is the target or the content of its box. `letters`: where the
    target is a capital letter and the answer begins with a letter as a choice, these are compared, and no rule is asked.
    Parsed: `answer`, and `rule`, the name of the rule that decided (`letter`, or one of `rules`). An answer without a box has
    no accuracy, but may have the format, which needs no closing of nested braces: as in the papers its reward is then 0.1.
    """
    texts = [without_blanks(text) for text in answers.texts]
    found = [last_box(text) for text in texts]
    targets = [truth_of(target) for target in answers.targets]
    pairs = list(zip(found, targets, strict=True))
    decided = _decided(pairs, rules, letters=letters)
    right = np.array([v.right for v in decided], dtype=float)
    formed = np.array([has_format(text) for text in texts], dtype=float)
    return Scores(
        ACCURACY * right + FORMAT * formed,
        [{"answer": box, "rule": v.rule} if box else None for box, v in zip(found, decided, strict=True)],
        {"accuracy": right, "format": formed},
        [v.reason for v in decided],
    )


def _decided(pairs: Sequence[tuple[str | None, str]], rules: Sequence[Rule], *, letters: bool) -> list[Verdict]:
    at_once = [_at_once(box, target, rules, letters=letters) for box, target in pairs]
    asked: list[Pair] = [(box or "", t) for (box, t), v in zip(pairs, at_once, strict=True) if v is None]
    answered = iter(verdicts(asked, rules))
    return [v or next(answered) for v in at_once]


def _at_once(box: str | None, target: str, rules: Sequence[Rule], *, letters: bool) -> Verdict | None:
    """The verdict where no rule has to be asked, else None."""
    if box is None:
        return Verdict(False, None, r"no \boxed{} that is closed")
    if not box:
        return Verdict(False, None, r"the \boxed{} is empty")
    if not target:
        return Verdict(False, None, "there is no truth to compare with")
    if letters and (same := same_choice(box, target)) is not None:
        return Verdict(same, "letter")
    if box == target:  # as the first rule, MathRuler, would find; most right answers are, and need no process
        return Verdict(True, rules[0].__name__)
    return None


METRICS = {
    **ACCURACY_METRICS,
    "format": RewardMetric(mean("format"), "answers in the asked format"),
}

REWARD = Reward(
    name="boxed_exact",
    summary="0.9 where MathRuler finds the boxed answer equal to the truth, and 0.1 for the asked format",
    score=boxed_exact,
    components=("accuracy", "format"),
    metrics=METRICS,
)
