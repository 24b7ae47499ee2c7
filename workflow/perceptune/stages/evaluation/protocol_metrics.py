"""The metrics of a published benchmark's protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.seeds import derived_seed
from perceptune.core.benchmarks.benchmark import Answered, Measured, mean_of_known, protocol_of, unit_columns
from perceptune.core.benchmarks.bootstrap import bounds, resampled_totals, run_spread, weighted_sum
from perceptune.core.benchmarks.density import DENSITY, quarters
from perceptune.core.rewards.metrics import Columns, Metric
from perceptune.stages.evaluation.judged_answers import READ, Questions, answered, with_verdicts
from perceptune.stages.evaluation.metric_rows import (
    COMPARED,
    MEASURED,
    UNCOMPARED,
    Reading,
    condition_columns,
    matched,
    measured_row,
    sampled_rows,
)

SEVERAL = "all"
"""Task name of metrics over several tasks."""


class ProtocolMetrics:
    """A benchmark block with a protocol."""

    columns: tuple[str, ...] = (*MEASURED, *READ)

    def __init__(
        self,
        name: str,
        block: BenchmarkBlock,
        rewards: dict[str, str],
        examples: Path,
        verdicts: tuple[Path | None, ...],
    ) -> None:
        """`rewards` maps tasks to their reward.

        `verdicts` has one table (or None) for the policy, its base model, and every other compared
        policy.
        """
        protocol = protocol_of(block)
        assert protocol
        self.block = block
        self._name, self._rewards, self._questions = name, rewards, Questions(examples)
        self._verdicts = verdicts
        self._protocol = protocol

    def rows(self, answers: pl.DataFrame, base_answers: pl.DataFrame | None) -> Iterator[dict[str, Any]]:
        """Rows of the metrics table per view and condition, without policy, benchmark and split."""
        for (view, condition), part in answers.group_by("view", "condition", maintain_order=True):
            tasks = part["task"].unique().to_list()
            shared = {"task": tasks[0] if len(tasks) == 1 else SEVERAL, "view": view}
            baseline = (
                None if base_answers is None else matched(base_answers.filter(view=view, condition=condition), part)
            )
            address = (self._name, str(shared["task"]), str(view))
            if condition == "sampled":
                rows = self._sampled(part, baseline, address, tasks)
            else:
                rows = self._measured(part, baseline, condition_columns(str(condition)), address)
            yield from ({**shared, **row} for row in rows)
            if self._protocol.by_density and condition == "greedy" and view == self.block.views[0]:
                yield from ({**shared, **row} for row in self._by_density(part, baseline, address))

    def parts(self, answers: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """All answers together."""
        tasks = answers["task"].unique().to_list()
        yield tasks[0] if len(tasks) == 1 else SEVERAL, answers

    def greedy(self, part: pl.DataFrame, metric: str | None = None, table_index: int = 0) -> Reading:
        """A metric of the protocol."""
        name = metric or next(iter(self._protocol.metrics))
        columns = unit_columns(self._protocol, self._answered(self._judged(part, table_index)))
        return Reading(name, self._protocol.metrics[name].metric, columns, of_sums=True)

    def averaged(self, part: pl.DataFrame, table_index: int = 0) -> Reading:
        """The primary metric, averaged over runs."""
        name, measured = next(iter(self._protocol.metrics.items()))
        columns = self._columns(part, table_index)
        runs = part["sample_index"].n_unique()
        return Reading(name, _mean_of_runs(measured) if runs > 1 else measured.metric, columns, of_sums=True)

    def primary(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...]
    ) -> dict[str, float | None]:
        """The primary metric of some of the answers."""
        reading, base = self.greedy(part), None if baseline is None else self.greedy(baseline, table_index=1).columns
        return measured_row(reading.metric, reading.columns, base, self.block, address)

    def _judged(self, part: pl.DataFrame, table_index: int) -> pl.DataFrame:
        return with_verdicts(part, self._verdicts[table_index])

    def _answered(self, judged: pl.DataFrame) -> list[Answered]:
        answers = answered(judged, self._questions)
        self._check_components(answers)
        return answers

    def _check_components(self, answers: Sequence[Answered]) -> None:
        """Raises `UserError` if the reward lacks components that the metrics need."""
        for answer in answers:
            expected = self._protocol.components.get(answer.task, ())  # type: ignore[call-overload]
            judged = answer.text is None or answer.verdict is not None
            if not judged and (missing := [name for name in expected if name not in answer.components]):
                raise UserError(
                    f"benchmark `{self._name}`: protocol `{self._protocol.name}` requires component `{missing[0]}` for "
                    f"every answer, reward `{self._rewards[answer.task]}` for task `{answer.task}` does not provide it",
                    "remove `reward` from the benchmark block to use the protocol's own",
                )

    def _measured(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, fixed: dict[str, Any], address: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """One row per metric, for one answer per question or for several runs."""
        counts = _Counts(self._protocol.metrics)
        columns = self._columns(part, 0, counts)
        base = None if baseline is None else self._columns(baseline, 1)
        several = part["sample_index"].n_unique() > 1
        seed = derived_seed("bootstrap", self.block.seed, *address, fixed["condition"])
        tables = [columns] if base is None else [columns, base]
        drawn = resampled_totals(tables, resamples=self.block.resamples, seed=seed)
        for name, measured in self._protocol.metrics.items():
            metric = _mean_of_runs(measured) if several else measured.metric
            found = compared(metric, tables, drawn)
            why = f"needs {measured.needs}" if measured.needs else "it is not a number"
            reason = f"not measured: {why}" if found["value"] is None else None
            yield {**fixed, "metric": name, **counts.of(name), **found, "reason": reason}
            of_runs = np.asarray(measured.metric(columns)).ravel()
            known = of_runs[~np.isnan(of_runs)]
            if found["value"] is not None and known.size > 1:
                spread = run_spread(known[None])
                empty = dict.fromkeys(UNCOMPARED)
                yield {**fixed, "metric": f"{name}_run_std", **counts.of(name), "value": spread, **empty}

    def _by_density(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """The metrics of each quarter of the questions, and the lengths of its true texts."""
        lengths = part["target"].fill_null("").str.len_chars()
        levels = pl.Series(quarters(lengths.to_list()))
        for level in levels.unique().sort():
            chosen, own = levels == level, lengths.filter(levels == level)
            fixed = {"condition": DENSITY, "k": level}
            of_base = None if baseline is None else baseline.filter(chosen)
            yield from self._measured(part.filter(chosen), of_base, fixed, (*address, str(level)))
            for name, value in (
                ("characters", own.mean()),
                ("characters_min", own.min()),
                ("characters_max", own.max()),
            ):
                counts = {"n": len(own), "n_failed": 0}
                yield {**fixed, "metric": name, **counts, "value": value, **dict.fromkeys(UNCOMPARED)}

    def _columns(self, part: pl.DataFrame, table_index: int, counts: _Counts | None = None) -> Columns:
        """The columns of the answers: (units,), or (runs, units) for several runs.

        Adds the answers to `counts`. Only one run at a time is in memory as objects.
        """
        found: list[Columns] = []
        for run in self._judged(part, table_index).partition_by("sample_index", maintain_order=True):
            answers = self._answered(run)
            found.append(unit_columns(self._protocol, answers))
            if counts:
                counts.add(answers)
        return found[0] if len(found) == 1 else {name: np.stack([c[name] for c in found]) for name in found[0]}

    def _sampled(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...], tasks: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Means over runs (run i has every i-th answer), and the reward's best of k."""
        ordered = part.sort("sample_index", "request_id")
        base_ordered = None if baseline is None else baseline.sort("sample_index", "request_id")
        count = part["sample_index"].n_unique()
        yield from self._measured(ordered, base_ordered, {"condition": "mean_of_n", "k": count}, address)
        rewards = {self._rewards[task] for task in tasks}
        if len(rewards) == 1:
            yield from sampled_rows(part, baseline, rewards.pop(), self.block, address, ("best_of_n",))


class _Counts:
    """The numbers of answers that each metric covers, and of those among them that failed."""

    def __init__(self, metrics: Mapping[str, Measured]) -> None:
        self._metrics = metrics
        self._found = {name: [0, 0] for name in metrics}

    def add(self, answers: Sequence[Answered]) -> None:
        """Counts further answers."""
        for name, measured in self._metrics.items():
            relevant = list(filter(measured.of, answers))
            self._found[name][0] += len(relevant)
            self._found[name][1] += sum(map(measured.failed, relevant))

    def of(self, metric: str) -> dict[str, int]:
        """`n` and `n_failed` of a metric."""
        return dict(zip(("n", "n_failed"), self._found[metric], strict=True))


def compared(metric: Metric, tables: Sequence[Columns], drawn: Sequence[Columns]) -> dict[str, float | None]:
    """Value and interval of the first table; with a second one, its value and the gain.

    None: unknown. A single unit has no interval: it says nothing about the variation between units.
    """
    values = [float(metric(columns)) for columns in tables]
    single = next(iter(tables[0].values())).shape[-1] == 1
    draws = [np.full(1, np.nan) if single else metric(totals) for totals in drawn]
    found: dict[str, float | None] = {"value": None, **dict.fromkeys(UNCOMPARED)}
    if not math.isnan(values[0]):
        found |= dict(zip(("value", "ci_low", "ci_high"), (values[0], *bounds(draws[0])), strict=True))
    if len(values) > 1 and not any(map(math.isnan, values)):
        gain = (values[1], values[0] - values[1], *bounds(weighted_sum((1, -1), draws)))
        found |= dict(zip(COMPARED, gain, strict=True))
    return found


def _mean_of_runs(measured: Measured) -> Metric:
    """The mean over runs of a metric of columns (runs, ..., units)."""
    if measured.of_some_runs:
        return lambda columns: mean_of_known(np.asarray(measured.metric(columns)))
    return lambda columns: np.asarray(measured.metric(columns)).mean(axis=0)
