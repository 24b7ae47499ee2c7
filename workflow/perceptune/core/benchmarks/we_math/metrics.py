"""We-Math, testmini: what a model knows, measured by posing each of 525 problems as a whole and
step by step.

| steps | whole problem | class |
|---|---|---|
| one wrong | wrong | insufficient knowledge (IK) |
| all right | wrong | inadequate generalisation (IG) |
| all right | right | complete mastery (CM); loose: one right step is enough |
| one wrong | right | rote memorisation (RM); loose: only where all steps are wrong |

Score = (problems - IG / 2 - RM - IK) / problems, strict or loose. Problems with missing steps have
no class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed
from perceptune.core.benchmarks.by_group import Group, group_columns, group_metrics
from perceptune.core.rewards.metrics import Columns, Metric, known_ratio

STEPS = {"2steps": 2, "3steps": 3}
PROMPT = (
    "Now, we require you to solve a multiple-choice math question. Please briefly describe your thought process and provide"
    " the final answer(option).\n{question}\nRegarding the format, please answer following the template below, and be sure to"
    " include two <> symbols:\n<Thought process>: <<your thought process>> <Answer>: <<your option>>"
)


def is_whole(answered: Answered) -> bool:
    """Whether the question is a whole problem, not a step."""
    return _key(answered).endswith("_multi")


def _key(answered: Answered) -> str:
    return str(answered.source["key"])


def _steps(answered: Answered) -> int:
    return STEPS.get(_key(answered).partition("_")[0], 0)


GROUPS = {
    "accuracy": Group("accuracy, all questions"),
    "one_step_accuracy": Group("accuracy, single steps (S1)", lambda a: not is_whole(a)),
    "two_step_accuracy": Group("accuracy, problems of two steps (S2)", lambda a: is_whole(a) and _steps(a) == 2),
    "three_step_accuracy": Group("accuracy, problems of three steps (S3)", lambda a: is_whole(a) and _steps(a) == 3),
}


def columns(answers: Sequence[Answered]) -> Columns:
    """Per problem, the counts of each group, and 1 or 0 for each class; all classes are 0 for an
    incomplete problem.
    """
    units = [str(a.source["problem"]) for a in answers]
    whole = [float(is_whole(a)) for a in answers]
    found = summed(
        units,
        {
            "wholes": whole,
            "whole right": [w * right(a) for w, a in zip(whole, answers, strict=True)],
            "steps": [1 - w for w in whole],
            "steps right": [(1 - w) * right(a) for w, a in zip(whole, answers, strict=True)],
            "steps wanted": [w * _steps(a) for w, a in zip(whole, answers, strict=True)],
        },
    )
    complete = (found["wholes"] == 1) & (found["steps"] == found["steps wanted"])
    solved = found["whole right"] == 1
    every, none = found["steps right"] == found["steps"], found["steps right"] == 0
    classes = {
        "problems": complete,
        "ik": complete & ~every & ~solved,
        "ig": complete & every & ~solved,
        "cm strict": complete & every & solved,
        "rm strict": complete & ~every & solved,
        "cm loose": complete & ~none & solved,
        "rm loose": complete & none & solved,
    }
    return {**group_columns(answers, GROUPS, units), **{name: held.astype(float) for name, held in classes.items()}}


def score(rote: str) -> Metric:
    """The score, where `rote` is the column of rote memorisation (strict or loose)."""
    lost = {"ig": 0.5, rote: 1.0, "ik": 1.0}

    def metric(columns: Columns) -> np.ndarray:
        total = columns["problems"].sum(axis=-1)
        left = total - sum(weight * columns[name].sum(axis=-1) for name, weight in lost.items())
        return known_ratio(left, total)

    return metric


def _rote_share(columns: Columns, kind: str) -> np.ndarray:
    rote, mastered = (columns[f"{name} {kind}"].sum(axis=-1) for name in ("rm", "cm"))
    return known_ratio(rote, rote + mastered)


def _of_problems(metric: Metric, label: str, *, lower_is_better: bool = False) -> Measured:
    return Measured(
        metric, label, lower_is_better=lower_is_better, of=is_whole, needs="problems with all of their steps"
    )


def _rote(kind: str) -> Measured:
    """The share of solved problems; undefined for runs that solve none."""
    return Measured(
        lambda columns: _rote_share(columns, kind),
        f"rote memorisation of solved problems ({kind})",
        lower_is_better=True,
        of=is_whole,
        needs="a solved problem with all of its steps",
        of_some_runs=True,
    )


BENCHMARK = Benchmark(
    name="we_math",
    rewards={"open": "we_math"},
    components={"open": ("accuracy",)},
    columns=columns,
    quoted=("score_strict", "score_loose", "accuracy"),
    metrics={
        "score_strict": _of_problems(score("rm strict"), "score (strict)"),
        "score_loose": _of_problems(score("rm loose"), "score (loose)"),
        "insufficient_knowledge": _of_problems(
            known_share("ik", "problems"), "insufficient knowledge", lower_is_better=True
        ),
        "inadequate_generalisation": _of_problems(
            known_share("ig", "problems"), "inadequate generalisation", lower_is_better=True
        ),
        "complete_mastery_strict": _of_problems(known_share("cm strict", "problems"), "complete mastery (strict)"),
        "complete_mastery_loose": _of_problems(known_share("cm loose", "problems"), "complete mastery (loose)"),
        "rote_memorisation_strict": _rote("strict"),
        "rote_memorisation_loose": _rote("loose"),
        **group_metrics(GROUPS),
    },
    settings={"prompt": PROMPT, "max_tokens": 2048},
    reads={"open": ("key", "problem")},
)
