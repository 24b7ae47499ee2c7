"""PAPO's table: acc@8 by exact match, for any data set of questions with one short answer (PAPO-Eval).

Eight answers at temperature 1, each scored by MathRuler on its last box; the mean over runs is acc@8. PAPO's own copies leave
out the questions that are no multiple choice in MathVerse, for example, so its columns are not those of the benchmarks
themselves. Unlike its script, questions with the same text and answer are not pooled.
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed
from perceptune.core.benchmarks.papo_sampling import PAPO
from perceptune.core.rewards.metrics import Columns


def columns(answers: Sequence[Answered]) -> Columns:
    """By question."""
    found = {
        "asked": [1.0] * len(answers),
        "right": [right(a) for a in answers],
        "formed": [a.components.get("format", 0.0) for a in answers],
    }
    return summed([a.example_id for a in answers], found)


ACCURACY = {"accuracy": Measured(known_share("right", "asked"), "accuracy", needs="questions")}
FORMAT = {"format": Measured(known_share("formed", "asked"), "answers in the asked format", needs="questions")}

BENCHMARK = Benchmark(
    name="papo_eval",
    rewards={"open": "boxed_exact"},
    components={"open": ("accuracy", "format")},
    columns=columns,
    metrics={**ACCURACY, **FORMAT},
    settings=PAPO,
)
