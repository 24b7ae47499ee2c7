"""DynaMath: average accuracy over the ten variants of each question, and worst-case accuracy, which
requires all ten to be right.

If the reply is not JSON, VLMEvalKit extracts the short answer with a language model; here, rules
read the reply.
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed
from perceptune.core.benchmarks.by_group import Group, group_columns, group_metrics, has
from perceptune.core.benchmarks.dynamath.data import VARIANTS
from perceptune.core.rewards.metrics import Columns

KINDS = {"float": "float", "multiple choice": "multiple_choice", "text": "text"}
GROUPS = {
    "accuracy": Group("average accuracy"),
    **{
        f"accuracy_{short}": Group(f"average accuracy, {kind}", has("answer_type", kind))
        for kind, short in KINDS.items()
    },
}


def columns(answers: Sequence[Answered]) -> Columns:
    """Counts per seed question; a `complete` one has all ten variants."""
    units = [str(a.source["seed_question"]) for a in answers]
    found = summed(units, {"variants": [1.0] * len(answers), "all right": [right(a) for a in answers]})
    complete = (found["variants"] == VARIANTS).astype(float)
    worst = complete * (found["all right"] == VARIANTS)
    return {**group_columns(answers, GROUPS, units), "complete": complete, "worst": worst}


_METRICS = group_metrics(GROUPS)

BENCHMARK = Benchmark(
    name="dynamath",
    rewards={"open": "dynamath"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics={
        "accuracy": _METRICS["accuracy"],
        "worst_case_accuracy": Measured(
            known_share("worst", "complete"),
            "worst-case accuracy (all ten variants right)",
            of=lambda answered: answered.source["variant"] == 1,
            needs="questions with all ten variants",
        ),
        **_METRICS,
    },
    settings={"prompt": "{question}", "max_tokens": 2048},
    reads={"open": ("answer_type", "seed_question", "variant")},
)
