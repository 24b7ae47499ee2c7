"""MMHal-Bench: free answers that a judge rates from 0 to 6, knowing what is in the image and how a person answered.

A rating below 3 says that there is a hallucination. A verdict without exactly one rating counts as 0, as officially, and is
counted as failed; so is an answer that is missing, which no judge is asked about. Differences to the official script: the
prompt is in our words and has no worked examples (`judge_prompt` takes the official one), the judge is whoever the config
names (officially gpt-4-0314), and types are read from the file (officially from the order of its rows; they agree).
Source: LLaVA-RLHF (Sun et al. 2023), its file of questions and its script; checked on hand-written verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Judged, Measured, filled, known_share
from perceptune.core.rewards.metrics import Columns

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
"""In the order of the official file, over and over."""
HALLUCINATED_BELOW = 3

PROMPT = """You check how a vision-language model has answered a question about an image. You cannot see the image. What is known \
about it is a list of what it contains and the answer of a person, which is right but may leave things out.

Contents of the image: {contents}

Question: {question}

Answer of the person: {reference}

Answer of the model, to be checked: {answer}

A hallucination is anything in the model's answer that the image does not show and that does not follow from it: a wrong object, \
number, attribute, place, relation, action or mood, or agreeing with a false assumption of the question. These are no \
hallucinations: saying less than the person, admitting not to know, general knowledge, and reasons or details that fit what is \
known. Sound analysis beyond the person's answer is welcome. Since not everything in the image is listed, be careful before you \
call a detail wrong.

First explain in one or two sentences whether the answer hallucinates and how informative it is. Then end with one line of the \
form "Rating: k" and write no other rating. The ratings:
6: no hallucination, very informative, with good analysis or reasoning
5: no hallucination, very informative
4: no hallucination, somewhat informative
3: no hallucination, not informative
2: hallucination, very informative
1: hallucination, somewhat informative
0: hallucination, not informative
"""


def rating(verdict: str | None) -> int | None:
    """The one number from 0 to 6 that follows "rating: " in a verdict; None where there is none, or where they differ."""
    found = [number for number in range(7) if f"rating: {number}" in (verdict or "").lower()]
    return found[0] if len(found) == 1 else None


def fields(answered: Answered) -> dict[str, str]:
    """What the prompt is filled with."""
    contents = answered.source.get("image_content") or []
    return {
        "contents": ", ".join(map(str, contents)),
        "question": answered.question,
        "reference": answered.target or "",
        "answer": answered.text or "",
    }


def columns(answers: Sequence[Answered]) -> Columns:
    """A number per question: `asked`, `rating`, `hallucinated`, and for each type whether it is of it and its rating if so."""
    ratings = np.array([rating(answered.verdict) or 0 for answered in answers], dtype=float)
    types = [answered.source.get("question_type") for answered in answers]
    found = {"asked": np.ones(len(ratings)), "rating": ratings, "hallucinated": (ratings < HALLUCINATED_BELOW) * 1.0}
    for kind in TYPES:
        found[kind] = np.array([one == kind for one in types], dtype=float)
        found[f"rating of {kind}"] = found[kind] * ratings
    return found


def _of(kind: str) -> Callable[[Answered], bool]:
    return lambda answered: answered.source.get("question_type") == kind


def _is_asked(answered: Answered) -> bool:
    return answered.text is not None


def _is_unrated(answered: Answered) -> bool:
    return rating(answered.verdict) is None


BENCHMARK = Benchmark(
    name="mmhal",
    rewards={"open": "free_text"},
    columns=columns,
    quoted=("mmhal_score", "mmhal_hallucination_rate"),
    metrics={
        "mmhal_score": Measured(
            known_share("rating", "asked"), "MMHal score, 0 to 6", percent=False, failed=_is_unrated
        ),
        "mmhal_hallucination_rate": Measured(
            known_share("hallucinated", "asked"), "hallucination rate", lower_is_better=True, failed=_is_unrated
        ),
        **{
            f"mmhal_score_{kind}": Measured(
                known_share(f"rating of {kind}", kind),
                f"MMHal score, {kind}",
                percent=False,
                of=_of(kind),
                failed=_is_unrated,
                needs=f"questions of type {kind}",
            )
            for kind in TYPES
        },
    },
    settings={"prompt": "{question}", "max_tokens": 1024, "views": ("original",)},
    reads={"open": ("image_content", "question_type")},
    judged=Judged(
        messages=lambda answered: [{"role": "user", "content": filled(PROMPT, fields(answered))}],
        max_tokens=1024,
        asked=_is_asked,
        fields=fields,
    ),
    judge_required=True,
)
