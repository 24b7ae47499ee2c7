"""The 14,216 yes/no questions of AMBER alone."""

from __future__ import annotations

from perceptune.core.benchmarks.amber import COMPONENTS, QUESTIONS, READS, SETTINGS, columns, question_metrics
from perceptune.core.benchmarks.benchmark import Benchmark

BENCHMARK = Benchmark(
    name="amber_discriminative",
    rewards=QUESTIONS,
    columns=columns,
    metrics=question_metrics(),
    quoted=("discriminative_f1", "discriminative_accuracy", "existence_f1", "attribute_f1", "relation_f1"),
    settings={**SETTINGS, "tasks": ["existence"]},
    components=COMPONENTS,
    reads=READS,
)
