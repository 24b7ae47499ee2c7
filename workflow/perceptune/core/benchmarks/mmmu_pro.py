"""MMMU-Pro, vision: the question and its options are in the image. Asked with the official prompt for step-by-step answers.

The official script answers at random where it can read no option; here such an answer is wrong, and counted among the unread.
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Group, group_columns, group_metrics
from perceptune.core.rewards.metrics import Columns

PROMPT = (
    "Write out the multiple-choice question in the image and then solve it. The last line of your response should be of the"
    " following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before"
    " answering."
)
GROUPS = {"accuracy": Group("accuracy")}


def columns(answers: Sequence[Answered]) -> Columns:
    """By question."""
    return group_columns(answers, GROUPS, [a.example_id for a in answers])


BENCHMARK = Benchmark(
    name="mmmu_pro",
    rewards={"open": "mmmu_pro"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics=group_metrics(GROUPS),
    settings={"prompt": PROMPT, "max_tokens": 2048},
    reads={"open": ("choices",)},
)
