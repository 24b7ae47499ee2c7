"""MATH-Vision: accuracy overall and by level; testmini is a subset of 304 questions.

Where VLMEvalKit's rules fail, it extracts the answer with a language model; here, further rules do,
see the reward `mathvision`.
"""

from __future__ import annotations

from collections.abc import Callable

from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.benchmarks.by_group import Group, accuracy_by_group

LEVELS = (1, 2, 3, 4, 5)


def _at(level: int) -> Callable[[Answered], bool]:
    return lambda answered: str(answered.source.get("level")) in (str(level), f"{level}.0")


GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    **{f"accuracy_level_{level}": Group(f"accuracy (rules), level {level}", _at(level)) for level in LEVELS},
}


BENCHMARK = accuracy_by_group("mathvision", GROUPS, reads=("choices",))
