"""Reads answers to MATH-Vision by the rules of its authors' script, which needs no language model.

Source: `evaluation/evaluate.py` and `evaluation/utils.py` of mathllm/MATH-V at commit 1d36118.
"""

from __future__ import annotations

import re

from perceptune.core.answers.extraction import lettered
from perceptune.core.answers.math_equivalence import may_have_value, same_rounded_latex, verdicts
from perceptune.core.benchmarks.mathvision.mathvision_vlmevalkit import mathvision_vlmevalkit
from perceptune.core.rewards.reward import (
    ACCURACY_METRICS,
    VLMEVALKIT_COMPONENTS,
    Answers,
    Reward,
    Scores,
    right_or_wrong,
    with_vlmevalkit,
)

LETTERS = "ABCDE"
ANNOUNCEMENTS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
BOX = "oxed{"
REPLACED = (
    (" ", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", ""), ("\\text", ""), ("\\mbox", ""),
    ("bmatrix", "pmatrix"), ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("{m}^3", ""), ("m^3", ""),
    ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"),
    ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""), ("\\%", ""), ("{.", "{0."),
)  # fmt: skip
"""Text removed or replaced in an answer, in this order."""
RATIO = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")
DECIMAL = re.compile(r"\$?\s*(-?[0-9]+(?:\.[0-9]+)?)\s*\$?")


def mathvision(answers: Answers) -> Scores:
    """Reward and component `accuracy`: 1 if `model_answer` is the ground truth, or for questions with
    `choices` the true option's letter or text.

    Equal are texts ignoring case, and LaTeX whose values round to the same two decimals, see
    `same_rounded_latex`. Components of VLMEvalKit's rules: see `mathvision_vlmevalkit`.
    """
    return with_vlmevalkit(official_scores(answers), mathvision_vlmevalkit(answers))


def official_scores(answers: Answers) -> Scores:
    """The scores of the authors' rules alone."""
    found: list[str | None] = []
    right: list[bool] = []
    undecided: dict[int, tuple[str, str]] = {}
    for i, (text, target, source) in enumerate(zip(answers.texts, answers.targets, answers.each_source(), strict=True)):
        answer, true = model_answer(text), target or ""
        found.append(answer or None)
        truths = [true, lettered(source.get("choices") or ()).get(true, "")]
        right.append(bool(answer) and any(answer.lower().strip() == one.lower().strip() for one in truths))
        valued = next(filter(may_have_value, (one.lower() for one in truths)), None)
        if right[i] or valued is None or not may_have_value(answer):
            continue
        if (one := DECIMAL.fullmatch(answer)) and (other := DECIMAL.fullmatch(valued)):
            right[i] = round(float(one[1]), 2) == round(float(other[1]), 2)
        else:
            undecided[i] = (answer, valued)
    decided = verdicts(list(undecided.values()), (same_rounded_latex,))
    for i, verdict in zip(undecided, decided, strict=True):
        right[i] = verdict.right
    return right_or_wrong(found, right, "the answer is empty")


def model_answer(response: str) -> str:
    r"""The answer that the authors' script extracts from a response, in lower case.

    A letter that begins the response as a line of its own or ends it after a blank, a number after the
    last "is", the last `\boxed{}`, or what follows "the answer is", up to the end of the sentence; else
    the whole response. Of that, the part after the last equals sign, without blanks, units and LaTeX
    commands for layout.
    """
    text = response.strip()
    text = next((letter for letter in LETTERS if _states(text, letter)), text)
    last = text.rpartition("is ")[2].rstrip(".")
    text = last if _is_number(last) else text
    if BOX not in text:
        for phrase in ANNOUNCEMENTS:
            for announcement in (phrase, phrase.replace("the", "The")):
                if announcement in text:
                    text = text.rpartition(announcement)[2].strip().split("\n")[0].split(". ")[0]
    elif text.count(BOX) > 1:
        text = f"\\b{BOX}{text.rpartition(BOX)[2]}"
    answer = _plain(text)
    for form in ("(%s)", "{%s}"):
        for letter in LETTERS.lower():
            answer = answer.replace(form % letter, letter)
    return answer.rstrip(".").lstrip(":").strip()


def _states(text: str, letter: str) -> bool:
    return text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(
        (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(text: str) -> str:
    answer = text.lower().replace("{}", "")
    if boxed := re.search(r"oxed\{(.*)\}", answer, re.DOTALL):
        answer = boxed[1]
    if closed := re.match(r"([^{}]*)\}", answer):
        answer = closed[1]
    answer = answer.rpartition("=")[2].rpartition("\\approx")[2]
    for old, new in REPLACED:
        answer = answer.replace(old, new)
    if answer.startswith("."):
        answer = "0" + answer
    if "sqrt" in answer:  # as in the script, fractions are completed only in answers with a root
        answer = re.sub(r"\\sqrt(?!\{|\\sqrt)(.)", r"\\sqrt{\1}", answer)
        answer = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", answer)
        answer = re.sub(r"\\frac([^{])(?=\{)", r"\\frac{\1}", answer)
    if answer == "0.5":
        return "\\frac{1}{2}"
    ratio = RATIO.fullmatch(answer)
    return f"\\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio else answer


REWARD = Reward(
    name="mathvision",
    summary="1 if the answer is the ground truth or the true option, as MATH-Vision's script compares them",
    score=mathvision,
    components=VLMEVALKIT_COMPONENTS,
    metrics=ACCURACY_METRICS,
)
