"""The 14,216 yes/no questions of AMBER alone."""

from __future__ import annotations

from perceptune.core.benchmarks.amber import QUESTIONS, SETTINGS, columns, question_metrics
from perceptune.core.benchmarks.benchmark import Benchmark

AMBER_DISCRIMINATIVE = Benchmark(
    name="amber_discriminative",
    rewards=QUESTIONS,
    columns=columns,
    metrics=question_metrics(),
    settings={**SETTINGS, "tasks": ["existence"]},
)
