"""The 1,004 descriptions of AMBER alone."""

from __future__ import annotations

from perceptune.core.benchmarks.amber import COMPONENTS, DESCRIPTIONS, READS, SETTINGS, columns, description_metrics
from perceptune.core.benchmarks.benchmark import Benchmark

BENCHMARK = Benchmark(
    name="amber_generative",
    rewards=DESCRIPTIONS,
    columns=columns,
    metrics=description_metrics(),
    settings={**SETTINGS, "tasks": ["open"]},
    components=COMPONENTS,
    reads=READS,
)
