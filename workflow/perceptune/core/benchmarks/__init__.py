"""Published benchmarks by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.benchmarks.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {}
