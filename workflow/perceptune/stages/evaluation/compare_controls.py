"""Compares a policy's gain with controls that could explain it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from perceptune.contracts.config import BenchmarkBlock
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.controls import CONTROLS
from perceptune.contracts.tables.io import write_table
from perceptune.core.benchmarks.bootstrap import paired_sum
from perceptune.core.benchmarks.control_prompts import number_of
from perceptune.stages.evaluation.evaluate import measuring, measuring_plugins
from perceptune.stages.evaluation.metric_rows import Measuring, Reading, answers_of, together

BLANK = "blank"
Planned = Callable[[], dict[str, Any]]
"""Computes a row."""


@dataclass(frozen=True)
class Scored:
    """A policy's name and, by benchmark, its scored answers and the judge's verdicts on them."""

    policy: str
    rewards: Mapping[str, Path]
    verdicts: Mapping[str, Path] = field(default_factory=dict)


def run(
    *,
    policy: Scored,
    base: Scored,
    twin: Scored | None,
    benchmarks: dict[str, BenchmarkBlock],
    reward_tasks: Mapping[str, dict[str, str]],
    examples: Mapping[str, Path],
    controls: Path,
) -> None:
    """Writes the `controls` table of `policy`, trained from `base`.

    Controls use the primary metric and greedy answers under the first view. `twin` is the SFT
    counterpart: trained on the best answers of the same lists with the same budget. `examples` are
    by dataset; `reward_tasks` as in `evaluate.run`.
    """
    rows: list[dict[str, Any]] = []
    scored = [one for one in (policy, base, twin) if one is not None]
    for name, block in benchmarks.items():
        verdicts = tuple(one.verdicts.get(name) for one in scored)
        measured = measuring(name, block, reward_tasks[block.reward], examples, verdicts)
        tables = [answers_of(one.rewards[name], name, measured.columns) for one in scored]
        fixed = {"policy": policy.policy, "benchmark": name, "split": block.split, "view": block.views[0]}
        greedy = _greedy(tables[0], block.views[0])
        for task, part in measured.parts(greedy):
            compared = _Compared(measured, part, tables, [one.policy for one in scored], (name, task))
            rows += [{**fixed, "task": task, **row} for row in together(compared.rows())]
    inputs = {f"rewards {b} of {one.policy}": path for one in scored for b, path in one.rewards.items()}
    inputs |= {f"verdicts on {b} of {one.policy}": path for one in scored for b, path in one.verdicts.items()}
    parameters = {
        "policy": policy.policy,
        "base": base.policy,
        "twin": twin and twin.policy,
        "benchmarks": {k: b.model_dump(mode="json") for k, b in benchmarks.items()},
    }
    plugins = measuring_plugins(benchmarks, reward_tasks)
    write_table(controls, CONTROLS, rows, lineage("evaluation.compare_controls", parameters, inputs, plugins))


def _greedy(answers: pl.DataFrame, view: str, condition: str = "greedy") -> pl.DataFrame:
    return answers.filter(condition=condition, view=view)


class _Compared:
    """One benchmark and task.

    `part` holds the policy's greedy answers, `tables` all answers of the policy, its base model and
    its SFT counterpart.
    """

    def __init__(
        self,
        measured: Measuring,
        part: pl.DataFrame,
        tables: Sequence[pl.DataFrame],
        names: Sequence[str],
        address: tuple[str, str],
    ) -> None:
        self._measured, self._part, self._tables, self._names = measured, part, tables, names
        self._address = (*address, measured.block.views[0])
        self._view = measured.block.views[0]

    def rows(self) -> Iterator[Planned]:
        """One row per control that has data, without policy, benchmark, split, task and view."""
        base = self._tables[1]
        for condition in base.filter(view=self._view)["condition"].unique(maintain_order=True):
            number = 0 if condition == "greedy" else number_of(condition)
            if number is not None:
                yield from self._against("prompt", number, 1, _greedy(base, self._view, condition))
        yield from self._without_image()
        if (drawn := base.filter(condition="sampled", view=self._view)).height:
            yield from self._against("mean_of_n", drawn["sample_index"].n_unique(), 1, drawn, averaged=True)
        if len(self._tables) > 2:
            yield from self._against("sft_on_best", 1, 2, _greedy(self._tables[2], self._view))

    def _against(
        self, control: str, k: int, table_index: int, control_answers: pl.DataFrame, *, averaged: bool = False
    ) -> Iterator[Planned]:
        """The policy's greedy answers against other answers to the same questions."""
        answers, base, others = _aligned(self._part, _greedy(self._tables[1], self._view), control_answers)
        if not answers.height:
            return
        read = self._measured.averaged if averaged else self._measured.greedy
        other = read(others, table_index=table_index)
        if other is None:
            return
        here = self._measured.greedy(answers, other.name)
        there = self._measured.greedy(base, other.name, table_index=1)
        values = {"value": here.value, "control_value": other.value, "gain": here.value - there.value}
        found = {"control": control, "against": self._names[table_index], "k": k, "n": answers.height, **values}
        yield from self._planned(found, [(1, here), (-1, other)])

    def _without_image(self) -> Iterator[Planned]:
        """The gain with the image against the gain without it."""
        blank = [_greedy(table, BLANK) for table in self._tables[:2]]
        if self._view == BLANK or not all(answers.height for answers in blank):
            return
        parts = _aligned(self._part, _greedy(self._tables[1], self._view), *blank)
        if not parts[0].height:
            return
        seen, base, unseen, base_unseen = (
            self._measured.greedy(part, table_index=index) for part, index in zip(parts, (0, 1, 0, 1), strict=True)
        )
        gain, left = seen.value - base.value, unseen.value - base_unseen.value
        terms = [(1, seen), (-1, base), (-1, unseen), (1, base_unseen)]
        values = {"value": gain, "control_value": left, "gain": gain}
        found = {"control": "blank", "against": self._names[0], "k": 1, "n": parts[0].height, **values}
        yield from self._planned(found, terms)

    def _planned(self, found: dict[str, Any], terms: Sequence[tuple[float, Reading]]) -> Iterator[Planned]:
        """The row, unless the metric could not be measured."""
        if all(math.isfinite(found[name]) for name in ("value", "control_value", "gain")):
            yield partial(self._row, found, terms)

    def _row(self, found: dict[str, Any], terms: Sequence[tuple[float, Reading]]) -> dict[str, Any]:
        """The row with the weighted sum of `terms` and its interval."""
        block, reading = self._measured.block, terms[0][1]
        seed = derived_seed("bootstrap", block.seed, *self._address)
        summed = [(weight, of.metric, of.columns) for weight, of in terms]
        drawn = paired_sum(summed, resamples=block.resamples, seed=seed, of_sums=reading.of_sums)
        return {**found, "metric": reading.name, **dict(zip(("difference", "ci_low", "ci_high"), drawn, strict=True))}


def _aligned(*answers: pl.DataFrame) -> list[pl.DataFrame]:
    """The answers to the questions that all tables have, ordered by question as in the first."""
    common = answers[0].select("example_id").unique(maintain_order=True)
    for other in answers[1:]:
        common = common.join(other.select("example_id"), "example_id", "semi", maintain_order="left")
    return [common.join(one, "example_id", "left", maintain_order="left_right") for one in answers]
