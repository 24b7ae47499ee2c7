"""The official metrics of a published benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.seeds import derived_seed
from perceptune.core.benchmarks.benchmark import Answered, Measured, mean_of_known, protocol_of
from perceptune.core.benchmarks.bootstrap import bounds, resampled_totals, run_spread
from perceptune.core.rewards.metrics import Columns, Metric
from perceptune.stages.evaluation.judged_answers import answered
from perceptune.stages.evaluation.metric_rows import (
    COMPARED,
    UNCOMPARED,
    Reading,
    matched,
    measured_row,
    sampled_rows,
    told_as,
)

SEVERAL = "all"
"""The task of metrics that are about several."""


class Official:
    """A benchmark block with a protocol, and what is needed to measure it."""

    def __init__(
        self,
        name: str,
        block: BenchmarkBlock,
        rewards: dict[str, str],
        examples: Path,
        verdicts: tuple[Path | None, ...],
    ) -> None:
        """`rewards` maps tasks to their reward; `verdicts` are the tables of the policy, its base model and of others that are
        compared, or None each."""
        protocol = protocol_of(block)
        assert protocol
        self.block = block
        self._name, self._rewards, self._examples = name, rewards, examples
        self._verdicts = verdicts
        self._protocol = protocol

    def rows(self, ours: pl.DataFrame, theirs: pl.DataFrame | None) -> Iterator[dict[str, Any]]:
        """Rows of the metrics table for every view and condition, without policy, benchmark and split."""
        for (view, condition), part in ours.group_by("view", "condition", maintain_order=True):
            tasks = part["task"].unique().to_list()
            shared = {"task": tasks[0] if len(tasks) == 1 else SEVERAL, "view": view}
            baseline = None if theirs is None else matched(theirs.filter(view=view, condition=condition), part)
            address = (self._name, str(shared["task"]), str(view))
            if condition == "sampled":
                rows = self._sampled(part, baseline, address, tasks)
            else:
                rows = self._measured(part, baseline, told_as(str(condition)), address)
            yield from ({**shared, **row} for row in rows)

    def parts(self, answers: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """All together."""
        tasks = answers["task"].unique().to_list()
        yield tasks[0] if len(tasks) == 1 else SEVERAL, answers

    def greedy(self, part: pl.DataFrame, metric: str | None = None, whose: int = 0) -> Reading:
        """An official metric."""
        name = metric or next(iter(self._protocol.metrics))
        columns = self._protocol.columns(self._answered(part, whose))
        return Reading(name, self._protocol.metrics[name].metric, columns)

    def averaged(self, part: pl.DataFrame, whose: int = 0) -> Reading:
        """The mean over runs of the primary metric."""
        name, measured = next(iter(self._protocol.metrics.items()))
        columns = self._read(part, whose)[1]
        runs = part["sample_index"].n_unique()
        return Reading(name, _mean_of_runs(measured) if runs > 1 else measured.metric, columns)

    def primary(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...]
    ) -> dict[str, float | None]:
        """The primary metric of some of the answers."""
        ours, base = self.greedy(part), None if baseline is None else self.greedy(baseline, whose=1).columns
        return measured_row(ours.metric, ours.columns, base, self.block, address)

    def _answered(self, part: pl.DataFrame, whose: int) -> list[Answered]:
        answers = answered(part, self._examples, self._verdicts[whose])
        self._check_components(answers)
        return answers

    def _check_components(self, answers: Sequence[Answered]) -> None:
        """Raises `UserError` where the reward is one that says nothing of what the metrics are made of: all would be wrong."""
        for answer in answers:
            expected = self._protocol.components.get(answer.task, ())  # type: ignore[call-overload]
            judged = answer.text is None or answer.verdict is not None
            if not judged and (missing := [name for name in expected if name not in answer.components]):
                raise UserError(
                    f"benchmark `{self._name}`: protocol `{self._protocol.name}` needs `{missing[0]}` of every answer, which "
                    f"reward `{self._rewards[answer.task]}` for task `{answer.task}` does not give",
                    "without `reward` in the benchmark block the protocol's own reads them",
                )

    def _measured(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, fixed: dict[str, Any], address: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """One row per official metric, of one answer to each question or of several runs of them."""
        answers, columns = self._read(part, 0)
        base = None if baseline is None else self._read(baseline, 1)[1]
        several = len(answers) > 1
        seed = derived_seed("bootstrap", self.block.seed, *address, fixed["condition"])
        tables = [columns] if base is None else [columns, base]
        drawn = resampled_totals(tables, resamples=self.block.resamples, seed=seed)
        for name, measured in self._protocol.metrics.items():
            metric = _mean_of_runs(measured) if several else measured.metric
            mine = [a for run in answers for a in run if measured.of(a)]
            counts = {"n": len(mine), "n_failed": sum(map(measured.failed, mine))}
            found = _compared(metric, tables, drawn)
            reason = f"not measured: needs {measured.needs}" if found["value"] is None else None
            yield {**fixed, "metric": name, **counts, **found, "reason": reason}
            of_runs = np.asarray(measured.metric(columns)).ravel()
            known = of_runs[~np.isnan(of_runs)]
            if found["value"] is not None and known.size > 1:
                spread = run_spread(known[None])
                yield {**fixed, "metric": f"{name}_run_std", **counts, "value": spread, **dict.fromkeys(UNCOMPARED)}

    def _read(self, part: pl.DataFrame, whose: int) -> tuple[list[list[Answered]], Columns]:
        """The answers run by run, and their columns, shape (units,), or (runs, units) of several runs."""
        runs = [self._answered(one, whose) for one in part.partition_by("sample_index", maintain_order=True)]
        columns = [self._protocol.columns(run) for run in runs]
        if len(columns) == 1:
            return runs, columns[0]
        return runs, {name: np.stack([c[name] for c in columns]) for name in columns[0]}

    def _sampled(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...], tasks: list[str]
    ) -> Iterator[dict[str, Any]]:
        """The mean over runs, run i being the i-th answers of all questions; best of k as the reward sees it."""
        ordered = part.sort("sample_index", "request_id")
        theirs = None if baseline is None else baseline.sort("sample_index", "request_id")
        count = part["sample_index"].n_unique()
        yield from self._measured(ordered, theirs, {"condition": "mean_of_n", "k": count}, address)
        rewards = {self._rewards[task] for task in tasks}
        if len(rewards) == 1:
            yield from sampled_rows(part, baseline, rewards.pop(), self.block, address, ("best_of_n",))


def _compared(metric: Metric, tables: Sequence[Columns], drawn: Sequence[Columns]) -> dict[str, float | None]:
    """Value and interval of a policy, the first of the tables, and with a base model its value and the gain; None: unknown."""
    values, draws = [float(metric(columns)) for columns in tables], [metric(totals) for totals in drawn]
    found: dict[str, float | None] = {"value": None, **dict.fromkeys(UNCOMPARED)}
    if not math.isnan(values[0]):
        found |= dict(zip(("value", "ci_low", "ci_high"), (values[0], *bounds(draws[0])), strict=True))
    if len(values) > 1 and not any(map(math.isnan, values)):
        gain = (values[1], values[0] - values[1], *bounds(draws[0] - draws[1]))
        found |= dict(zip(COMPARED, gain, strict=True))
    return found


def _mean_of_runs(measured: Measured) -> Metric:
    """The mean over the first axis of a metric of columns (runs, ..., units)."""
    if measured.of_some_runs:
        return lambda columns: mean_of_known(np.asarray(measured.metric(columns)))
    return lambda columns: np.asarray(measured.metric(columns)).mean(axis=0)
