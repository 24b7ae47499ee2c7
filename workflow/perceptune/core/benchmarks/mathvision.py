"""MATH-Vision: overall, and by level; testmini is its 304-question part.

VLMEvalKit asks a language model to extract the answer where its rules fail; here the rules go on alone, see the reward
`mathvision`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Group, group_columns, group_metrics
from perceptune.core.rewards.metrics import Columns

LEVELS = (1, 2, 3, 4, 5)


def _at(level: int) -> Callable[[Answered], bool]:
    return lambda answered: str(answered.source.get("level")) in (str(level), f"{level}.0")


GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    **{f"accuracy_level_{level}": Group(f"accuracy (rules), level {level}", _at(level)) for level in LEVELS},
}


def columns(answers: Sequence[Answered]) -> Columns:
    """By question."""
    return group_columns(answers, GROUPS, [a.example_id for a in answers])


BENCHMARK = Benchmark(
    name="mathvision",
    rewards={"open": "mathvision"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics=group_metrics(GROUPS),
    settings={"prompt": "{question}", "max_tokens": 2048},
    reads={"open": ("choices",)},
)
