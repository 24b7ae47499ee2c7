"""Boxed answers graded by MathRuler alone: the training reward of PAPO and CPPO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.answers.boxed_answers import has_format, last_box, same_choice, truth_of, without_blanks
from perceptune.core.answers.math_equivalence import Pair, Rule, Verdict, mathruler, verdicts
from perceptune.core.answers.quantities import comparable
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, RewardMetric, Scores

ACCURACY, FORMAT = 0.9, 0.1
"""Weights of accuracy and format in the reward."""


def boxed_exact(answers: Answers) -> Scores:
    r"""The scores of `boxed_scores` by MathRuler alone: `4/2` is not `2`, `A. 12` is not `A`, and `90°` is
    not `90`, but `5\text{ cm}` is `5\text{ m}`, since MathRuler drops what is in `\text{}`.
    """
    return boxed_scores(answers, (mathruler,), quantities=False)


def boxed_scores(answers: Answers, rules: Sequence[Rule], *, quantities: bool) -> Scores:
    r"""Rewards 0.9 x accuracy + 0.1 x format; components `accuracy` and `format`, 0 or 1.

    The answer is the content of the last `\boxed{}`, the ground truth is the target or the content
    of its box. `quantities`: if the target is an option letter and the answer begins with one, compare
    the letters only; otherwise read Unicode and compare units, see `comparable`. Parsed: `answer`,
    and `rule`, the name of the rule that decided (`letter`, `unit`, or one of `rules`). An answer
    without a closed box has accuracy 0 but may have format 1, since the format does not check nested
    braces: as in the papers, its reward is then 0.1.
    """
    texts = [without_blanks(text) for text in answers.texts]
    found = [last_box(text) for text in texts]
    targets = [truth_of(target) for target in answers.targets]
    pairs = list(zip(found, targets, strict=True))
    decided = _decided(pairs, rules, quantities=quantities)
    right = np.array([v.right for v in decided], dtype=float)
    formed = np.array([has_format(text) for text in texts], dtype=float)
    return Scores(
        ACCURACY * right + FORMAT * formed,
        [{"answer": box, "rule": v.rule} if box else None for box, v in zip(found, decided, strict=True)],
        {"accuracy": right, "format": formed},
        [v.reason for v in decided],
    )


def _decided(pairs: Sequence[tuple[str | None, str]], rules: Sequence[Rule], *, quantities: bool) -> list[Verdict]:
    at_once = [_at_once(box, target, rules, quantities=quantities) for box, target in pairs]
    undecided = [found for found in at_once if not isinstance(found, Verdict)]
    decided = iter(verdicts(undecided, rules))
    return [found if isinstance(found, Verdict) else next(decided) for found in at_once]


def _at_once(box: str | None, target: str, rules: Sequence[Rule], *, quantities: bool) -> Verdict | Pair:
    """The verdict if it needs no rule, else the pair for the rules."""
    if box is None:
        return Verdict(False, None, r"no closed \boxed{}")
    if not box:
        return Verdict(False, None, r"the \boxed{} is empty")
    if not target:
        return Verdict(False, None, "there is no ground truth to compare with")
    if quantities and (same := same_choice(box, target)) is not None:
        return Verdict(same, "letter")
    if box == target:  # MathRuler, the first rule, would accept it; saves a process for most correct answers
        return Verdict(True, rules[0].__name__)
    if not quantities:
        return box, target
    pair = comparable(box, target)
    if pair is None:
        return Verdict(False, "unit")
    return Verdict(True, rules[0].__name__) if pair[0] == pair[1] else pair


METRICS = {
    **ACCURACY_METRICS,
    "format": RewardMetric(mean("format"), "answers in the required format"),
}

REWARD = Reward(
    name="boxed_exact",
    summary="0.9 if MathRuler finds the boxed answer equal to the ground truth, plus 0.1 for the required format",
    score=boxed_exact,
    components=("accuracy", "format"),
    metrics=METRICS,
    reads_reasoning=True,
    needs="answer",
)
