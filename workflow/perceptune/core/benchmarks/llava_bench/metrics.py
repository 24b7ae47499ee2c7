"""LLaVA-Bench (in the wild): a judge scores two answers from 1 to 10, the policy's and GPT-4's,
which is based on a description of the image.

The result is the sum of the policy's scores divided by the sum of GPT-4's, overall and by category.
As in the official script, the prompts are the same, GPT-4's answer comes first, and the scores must
be alone in the first line. Differences: the official script counts an unreadable line as -1 for
both answers, here it is skipped and counted as failed; `8, 7` can be read here; and the official
judge is gpt-4-0314 at temperature 0.2, here it is the configured model at temperature 0. A missing
answer is judged as an empty one.

Source: LLaVA (Liu et al. 2023), `eval_gpt_review_bench.py` and `summarize_gpt_review.py`; checked
on hand-written verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Judged, Measured
from perceptune.core.benchmarks.llava_bench.data import CATEGORIES
from perceptune.core.rewards.metrics import Columns, Metric, known_ratio

NAMES = {"conv": "conversation", "detail": "detailed description", "complex": "complex reasoning"}
OVERALL = "overall"
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
RULE = (
    "We would like to request your feedback on the performance of two AI assistants in response to the user question displayed"
    " above. The user asks the question on observing an image. For your reference, the visual content in the image is"
    " represented with a few sentences describing the image. \n"
    "Please rate the helpfulness, relevance, accuracy, level of details of their responses. Each assistant receives an overall"
    " score on a scale of 1 to 10, where a higher score indicates better overall performance.\n"
    "Please first output a single line containing only two values indicating the scores for Assistant 1 and 2, respectively."
    " The two scores are separated by a space.\n"
    "In the subsequent line, please provide a comprehensive explanation of your evaluation, avoiding any potential bias and"
    " ensuring that the order in which the responses were presented does not affect your judgment."
)
"""The published rule, which is the same for all three categories."""


def caption(answered: Answered) -> str:
    """The benchmark's description of the image."""
    return str(answered.source.get("caption", ""))


def messages(answered: Answered) -> list[dict[str, str]]:
    """The official judge prompt: the description of the image, the question, both answers and the
    rule.
    """
    parts = [
        f"[Context]\n{caption(answered)}",
        f"[Question]\n{answered.question}",
        f"[Assistant 1]\n{answered.target or ''}",
        "[End of Assistant 1]",
        f"[Assistant 2]\n{answered.text or ''}",
        "[End of Assistant 2]",
        f"[System]\n{RULE}",
    ]
    content = "".join(f"{part}\n\n" for part in parts)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def scores(verdict: str | None) -> tuple[float, float] | None:
    """The two scores from 0 to 10 in the first line of a verdict, separated by spaces or a comma;
    None if it contains anything else.
    """
    lines = (verdict or "").strip().splitlines() or [""]
    try:
        found = [float(word) for word in lines[0].replace(",", " ").split()]
    except ValueError:
        return None
    if len(found) != 2 or not all(math.isfinite(score) and 0 <= score <= 10 for score in found):
        return None
    return found[0], found[1]


def columns(answers: Sequence[Answered]) -> Columns:
    """Per question and category, GPT-4's score and the policy's; both 0 for another category or an
    unreadable verdict.
    """
    read = [scores(answered.verdict) or (0.0, 0.0) for answered in answers]
    found: dict[str, np.ndarray] = {}
    for category in (OVERALL, *CATEGORIES):
        inside = np.array([_of(category)(answered) for answered in answers], dtype=float)
        found[f"{category} reference"] = inside * [reference for reference, _ in read]
        found[f"{category} policy"] = inside * [policy for _, policy in read]
    return found


def _of(category: str) -> Callable[[Answered], bool]:
    return lambda answered: category in (OVERALL, answered.source.get("category"))


def _relative(category: str) -> Metric:
    """The policy's scores divided by GPT-4's; NaN if no verdict could be read."""

    def relative(columns: Columns) -> np.ndarray:
        policy, reference = (columns[f"{category} {name}"].sum(axis=-1) for name in ("policy", "reference"))
        return known_ratio(policy, reference)

    return relative


def _is_unread(answered: Answered) -> bool:
    return scores(answered.verdict) is None


BENCHMARK = Benchmark(
    name="llava_bench",
    rewards={"open": "free_text"},
    columns=columns,
    metrics={
        "llava_bench" if category == OVERALL else f"llava_bench_{category}": Measured(
            _relative(category),
            f"score relative to GPT-4's, {NAMES.get(category, OVERALL)}",
            of=_of(category),
            failed=_is_unread,
            needs="readable verdicts on questions of this category",
        )
        for category in (OVERALL, *CATEGORIES)
    },
    settings={"prompt": "{question}", "max_tokens": 1024, "views": ("original",)},
    reads={"open": ("caption", "category")},
    judged=Judged(messages=messages, max_tokens=1024, may_end_early=True),
    described=caption,
    judge_required=True,
)
