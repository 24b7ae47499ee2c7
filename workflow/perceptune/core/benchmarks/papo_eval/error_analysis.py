"""Why wrong answers are wrong: a judge sorts them into four kinds of mistakes, after PAPO's study of
200 errors.

The paper's instructions are not published, so the rubric is ours. The judge reads the question, the
right answer and the whole response, reasoning included, but does not see the image: it finds
perception errors only where the response states what the image contains. A response without an
answer (missing, or its reasoning never ends) is an `other` error and is not sent to the judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from perceptune.core.benchmarks.benchmark import (
    Answered,
    Judged,
    Measured,
    given_but_wrong,
    known_share,
    right,
    summed,
)
from perceptune.core.rewards.metrics import Columns

KINDS = ("perception", "reasoning", "calculation", "other")
WORD = re.compile(r"\W*(?:(?:category|error|kind)\W+)?(perception|reasoning|calculation|other)\b", re.IGNORECASE)
PROMPT = """A model was asked a question about an image and its final answer is wrong. You cannot see the image, but you know \
the right answer. Find the first mistake in the response that leads to the wrong answer, and name its kind:

perception: the response states something about the image that cannot be true if the right answer is right, for example a wrong \
number, length, label, position or relation, or an object that is not there.
reasoning: what it states about the image fits the right answer, but it uses a wrong rule, an unfounded assumption or a false \
conclusion, or misunderstands the question.
calculation: facts and approach fit the right answer, but an arithmetic or algebraic step is wrong.
other: none of these, for example no final answer, a cut-off or unreadable response, or a right value written in a way that was \
not accepted.

Question:
{question}

Right answer:
{answer}

Response:
{response}

Reply with one word and nothing else: perception, reasoning, calculation or other."""


def kind_of(verdict: str | None) -> str | None:
    """The kind of mistake that a verdict begins with; None if it does not begin with one."""
    found = WORD.match(verdict or "")
    return found[1].lower() if found else None


def error_of(answered: Answered) -> str | None:
    """The kind of mistake in a wrong answer; None if the answer is right or its verdict cannot be
    read.
    """
    if right(answered):
        return None
    return "other" if answered.text is None else kind_of(answered.verdict)


def fields(answered: Answered) -> dict[str, str]:
    """The fields of the judge prompt."""
    response = answered.response or answered.text or ""
    return {"question": answered.question, "answer": answered.target or "", "response": response}


def columns(answers: Sequence[Answered]) -> Columns:
    """Values per question: answers, right ones, wrong ones by kind, and those with a kind."""
    kinds = [error_of(a) for a in answers]
    found = {
        "questions": [1.0] * len(answers),
        "right": [right(a) for a in answers],
        "formed": [a.components.get("format", 0.0) for a in answers],
        "sorted": [float(kind is not None) for kind in kinds],
        **{kind: [float(one == kind) for one in kinds] for kind in KINDS},
    }
    return summed([a.example_id for a in answers], found)


def _wrong(answered: Answered) -> bool:
    return not right(answered)


def _unsorted(answered: Answered) -> bool:
    return _wrong(answered) and error_of(answered) is None


def _each(metric: Callable[[str], Measured], name: str) -> dict[str, Measured]:
    return {name.format(kind): metric(kind) for kind in KINDS}


ERRORS = {
    **_each(
        lambda kind: Measured(
            known_share(kind, "questions"),
            f"{kind} errors, of all answers",
            lower_is_better=True,
            failed=_unsorted,
            needs="questions",
        ),
        "{}_errors",
    ),
    **_each(
        lambda kind: Measured(
            known_share(kind, "sorted"),
            f"{kind} errors, of the errors",
            lower_is_better=True,
            of=_wrong,
            failed=_unsorted,
            needs="wrong answers with a verdict",
            of_some_runs=True,
        ),
        "{}_share_of_errors",
    ),
    **_each(
        lambda kind: Measured(
            lambda columns: columns[kind].sum(axis=-1),
            f"number of {kind} errors",
            percent=False,
            lower_is_better=True,
            failed=_unsorted,
        ),
        "{}_error_count",
    ),
}
"""`n` counts errors in the shares of errors and answers in the other metrics; `n_failed` counts
errors whose verdict could not be read, which belong to no kind.
"""
JUDGED = Judged.by_prompt(
    PROMPT,
    fields,
    max_tokens=16,
    asked=given_but_wrong,
    may_end_early=True,
    reads_reasoning=True,
    labels=KINDS,
    label=kind_of,
)
