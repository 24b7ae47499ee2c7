"""Geometry3K as in PAPO's table: acc@8 of its 601 test questions, see `papo_eval`."""

from __future__ import annotations

from dataclasses import replace

from perceptune.core.benchmarks.papo_eval import BENCHMARK as PAPO_EVAL

BENCHMARK = replace(PAPO_EVAL, name="geometry3k_papo")
