"""PAPO's table: acc@8 by exact match, for any dataset of questions with one short answer
(PAPO-Eval).

MathRuler scores the last box of eight answers at temperature 1; acc@8 is the mean over the runs.
PAPO's copies of the benchmarks differ from the originals (for MathVerse, they leave out the
questions that are not multiple choice), so its columns are not comparable with the original
benchmarks. Unlike PAPO's script, this does not pool questions with the same text and answer.

The variant `errors` adds why wrong answers are wrong, by a judge (`error_analysis.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed
from perceptune.core.benchmarks.papo_eval import error_analysis
from perceptune.core.benchmarks.papo_sampling import PAPO
from perceptune.core.rewards.metrics import Columns


def columns(answers: Sequence[Answered]) -> Columns:
    """Values per question."""
    found = {
        "questions": [1.0] * len(answers),
        "right": [right(a) for a in answers],
        "formed": [a.components.get("format", 0.0) for a in answers],
    }
    return summed([a.example_id for a in answers], found)


ACCURACY = {"accuracy": Measured(known_share("right", "questions"), "accuracy", needs="questions")}
FORMAT = {"format": Measured(known_share("formed", "questions"), "answers in the asked format", needs="questions")}

BENCHMARK = Benchmark(
    name="papo_eval",
    rewards={"open": "boxed_exact"},
    components={"open": ("accuracy", "format")},
    columns=columns,
    metrics={**ACCURACY, **FORMAT},
    settings=PAPO,
    variants={
        "errors": {
            "columns": error_analysis.columns,
            "metrics": {**ACCURACY, **error_analysis.ERRORS, **FORMAT},
            "quoted": ("accuracy", "perception_errors", "perception_share_of_errors"),
            "judged": error_analysis.JUDGED,
            "judge_required": True,
        }
    },
)
