"""Geometry3K under CPPO's protocol: avg@8, the text in the last box, or the whole text, handed to a scorer of VLMEvalKit.

CPPO's own table has no Geometry3K, and VLMEvalKit no scorer for it; this is its scorer for free answers to mathematical questions
(MATH-Vision's), which accepts equal numbers and LaTeX where PAPO's protocol wants MathRuler's match.
"""

from __future__ import annotations

from perceptune.core.benchmarks.benchmark import Benchmark
from perceptune.core.benchmarks.papo_eval import ACCURACY, columns
from perceptune.core.benchmarks.papo_sampling import CPPO

BENCHMARK = Benchmark(
    name="geometry3k_cppo",
    rewards={"open": "mathvision"},
    components={"open": ("accuracy",)},
    columns=columns,
    metrics=ACCURACY,
    settings=CPPO,
)
