"""TextVQA, validation: VQA accuracy over ten human answers.

An `attention_map` adds the attention metrics AFR and P-Acc. P-Acc is this accuracy on the questions
whose AFR under the base model is above its mean. Both need the boxes of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceptune.core.benchmarks.benchmark import Answered, Benchmark, Measured, known_share, right, summed
from perceptune.core.rewards.metrics import Columns


def columns(answers: Sequence[Answered]) -> Columns:
    """Values per image. NaN for a question without the human answers, because VQA accuracy needs
    them.
    """
    scores = [right(a) if a.source.get("answers") else np.nan for a in answers]
    units = [str(a.source.get("image_id", a.example_id)) for a in answers]
    return summed(units, {"questions": [1.0] * len(answers), "accuracy": scores})


BENCHMARK = Benchmark(
    name="textvqa",
    rewards={"open": "vqa_accuracy"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics={
        "accuracy": Measured(
            known_share("accuracy", "questions"), "VQA accuracy", needs="the ten `answers` of every question"
        ),
    },
    settings={
        "split": "val",
        "prompt": "{question}\nAnswer the question using a single word or phrase.",
        "max_tokens": 128,
    },
)
