"""MATH-Vision: overall, and by level; testmini is its 304-question part.

VLMEvalKit asks a language model to extract the answer where its rules fail; here the rules go on alone, see the reward
`mathvision`.
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
