"""MATH-Vision: accuracy overall and by level; testmini is a subset of 304 questions.

The metrics are those of the authors' script, `accuracy_vlmevalkit` applies VLMEvalKit's rules. Where
these fail, VLMEvalKit extracts the answer with a language model; here, further rules do, see the
reward `mathvision_vlmevalkit`.
"""

from __future__ import annotations

from collections.abc import Callable

from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.benchmarks.by_group import BY_VLMEVALKIT, Group, accuracy_by_group
from perceptune.core.rewards.reward import VLMEVALKIT_COMPONENTS

LEVELS = (1, 2, 3, 4, 5)


def _at(level: int) -> Callable[[Answered], bool]:
    return lambda answered: str(answered.source.get("level")) in (str(level), f"{level}.0")


GROUPS = {
    "accuracy": Group("accuracy (rules)"),
    "accuracy_vlmevalkit": BY_VLMEVALKIT,
    **{f"accuracy_level_{level}": Group(f"accuracy (rules), level {level}", _at(level)) for level in LEVELS},
}


BENCHMARK = accuracy_by_group("mathvision", GROUPS, reads=("choices",), components=VLMEVALKIT_COMPONENTS)
