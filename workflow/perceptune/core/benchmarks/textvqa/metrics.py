"""TextVQA, validation: VQA accuracy over ten people's answers.

An `attention` block adds where the policy looks (AFR) and P-Acc, this accuracy on the questions whose AFR under the base
model is above its mean; both need the boxes of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed
from perceptune.core.rewards.metrics import Columns


def columns(answers: Sequence[Answered]) -> Columns:
    """By image. NaN where a question does not have the ten answers, since nothing else is VQA accuracy."""
    scores = [right(a) if a.source.get("answers") else np.nan for a in answers]
    units = [str(a.source.get("image_id", a.example_id)) for a in answers]
    return summed(units, {"asked": [1.0] * len(answers), "accuracy": scores})


BENCHMARK = Benchmark(
    name="textvqa",
    rewards={"open": "vqa_accuracy"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics={
        "accuracy": Measured(
            known_share("accuracy", "asked"), "VQA accuracy", needs="the ten `answers` of every question"
        ),
    },
    settings={
        "split": "val",
        "prompt": "{question}\nAnswer the question using a single word or phrase.",
        "max_tokens": 128,
    },
)
