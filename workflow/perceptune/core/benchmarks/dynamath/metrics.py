"""DynaMath: average accuracy over the ten variants of each question, and worst-case accuracy, which
requires all ten to be right.

The metrics are those of the authors' script, those ending in `_vlmevalkit` apply VLMEvalKit's rules.
If the reply is not JSON, VLMEvalKit extracts the short answer with a language model; here, rules
read the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed, unread
from perceptune.core.benchmarks.by_group import (
    BY_VLMEVALKIT,
    Group,
    group_columns,
    group_metrics,
    has,
    right_by_vlmevalkit,
    unread_by_vlmevalkit,
    vlmevalkit_variant,
)
from perceptune.core.benchmarks.dynamath.data import VARIANTS
from perceptune.core.rewards.metrics import Columns
from perceptune.core.rewards.reward import VLMEVALKIT, VLMEVALKIT_COMPONENTS

KINDS = {"float": "float", "multiple choice": "multiple_choice", "text": "text"}
GROUPS = {
    "accuracy": Group("average accuracy"),
    "accuracy_vlmevalkit": BY_VLMEVALKIT,
    **{
        f"accuracy_{short}": Group(f"average accuracy, {kind}", has("answer_type", kind))
        for kind, short in KINDS.items()
    },
}


def columns(answers: Sequence[Answered]) -> Columns:
    """Counts per seed question; a `complete` one has all ten variants."""
    units = [str(a.source["seed_question"]) for a in answers]
    found = summed(
        units,
        {
            "variants": [1.0] * len(answers),
            "worst": [right(a) for a in answers],
            "worst vlmevalkit": [right_by_vlmevalkit(a) for a in answers],
        },
    )
    complete = (found["variants"] == VARIANTS).astype(float)
    worst = {name: complete * (found[name] == VARIANTS) for name in ("worst", "worst vlmevalkit")}
    return {**group_columns(answers, GROUPS, units), "complete": complete, **worst}


def _worst_case(column: str, label: str, failed: Callable[[Answered], bool]) -> Measured:
    return Measured(
        known_share(column, "complete"),
        label,
        of=lambda answered: answered.source["variant"] == 1,
        failed=failed,
        needs="questions with all ten variants",
    )


_BY_GROUP = group_metrics(GROUPS)
METRICS = {
    "accuracy": _BY_GROUP["accuracy"],
    "worst_case_accuracy": _worst_case("worst", "worst-case accuracy (all ten variants right)", unread),
    "accuracy_vlmevalkit": _BY_GROUP["accuracy_vlmevalkit"],
    "worst_case_accuracy_vlmevalkit": _worst_case(
        "worst vlmevalkit", f"worst-case accuracy ({VLMEVALKIT})", unread_by_vlmevalkit
    ),
    **_BY_GROUP,
}

BENCHMARK = Benchmark(
    name="dynamath",
    rewards={"open": "dynamath"},
    components={"open": VLMEVALKIT_COMPONENTS},
    columns=columns,
    metrics=METRICS,
    settings={"prompt": "{question}", "max_tokens": 2048},
    reads={"open": ("answer_type", "seed_question", "variant")},
    variants=vlmevalkit_variant(METRICS),
)
