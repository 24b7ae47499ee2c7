"""One policy's metrics on its benchmarks, with intervals and the paired gain over its base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from perceptune.contracts.config import BenchmarkBlock, ModelBlock
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables import metrics as metrics_table
from perceptune.contracts.tables.io import write_table
from perceptune.stages.evaluation.attention_metrics import attention_rows
from perceptune.stages.evaluation.judged_answers import judged_by
from perceptune.stages.evaluation.metric_rows import (
    MEASURED,
    Measuring,
    Reading,
    answers_of,
    columns_of,
    condition_columns,
    each_answer,
    matched,
    mean_of_column,
    measured_row,
    measured_rows,
    per_answer,
    sampled_rows,
    together,
)
from perceptune.stages.evaluation.protocol_metrics import ProtocolMetrics


def run(
    *,
    policy: str,
    base: str,
    rewards: dict[str, Path],
    base_rewards: dict[str, Path] | None,
    attention: dict[str, Path],
    base_attention: dict[str, Path] | None,
    metrics: Path,
    benchmarks: dict[str, BenchmarkBlock],
    reward_tasks: dict[str, dict[str, str]],
    model: ModelBlock,
    examples: Mapping[str, Path] = MappingProxyType({}),
    verdicts: Mapping[str, Path] = MappingProxyType({}),
    base_verdicts: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Writes the `metrics` table of `policy`.

    Mappings are by benchmark: `rewards` and `base_rewards` are the scored answers of the policy and
    its base model, `attention` and `base_attention` their attention maps (where measured),
    `verdicts` and `base_verdicts` the judge's verdicts (where judged). `examples` are by dataset.
    `reward_tasks` maps a reward block to the reward of each task, which declares the metrics; a
    protocol declares its own.
    """
    rows: list[dict[str, Any]] = []
    for name, block in benchmarks.items():
        shared: dict[str, Any] = {"policy": policy, "benchmark": name, "split": block.split}
        if name in verdicts:
            shared["judge"] = judged_by(str(block.judge), verdicts[name])
        judged = (verdicts.get(name), base_verdicts.get(name))
        measured = measuring(name, block, reward_tasks[block.reward], examples, judged)
        answers = answers_of(rewards[name], name, measured.columns)
        base_answers = answers_of(base_rewards[name], name, measured.columns) if base_rewards else None
        found = list(measured.rows(answers, base_answers))
        if name in attention:
            maps = (attention[name], base_attention[name] if base_attention else None)
            found += attention_rows(maps, answers, base_answers, measured, name, block.views[0])
        rows += [{**shared, **row} for row in found]
    inputs = {f"rewards {k}": v for k, v in rewards.items()}
    inputs |= {f"base rewards {k}": v for k, v in (base_rewards or {}).items()}
    inputs |= {f"attention {k}": v for k, v in attention.items()}
    inputs |= {f"base attention {k}": v for k, v in (base_attention or {}).items()}
    parameters = {
        "policy": policy,
        "base": base,
        "model": model.model_dump(mode="json"),
        "benchmarks": {k: b.model_dump(mode="json") for k, b in benchmarks.items()},
    }
    inputs |= {f"examples {k}": v for k, v in examples.items()}
    inputs |= {f"verdicts on {k}": v for k, v in verdicts.items()}
    inputs |= {f"verdicts on {k} of base": v for k, v in base_verdicts.items()}
    plugins = measuring_plugins(benchmarks, reward_tasks)
    write_table(metrics, metrics_table.METRICS, rows, lineage("evaluation.evaluate", parameters, inputs, plugins))


def measuring_plugins(
    benchmarks: Mapping[str, BenchmarkBlock], reward_tasks: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """The plug-ins that declare the metrics of these blocks: benchmarks and rewards."""
    protocols = sorted({block.protocol for block in benchmarks.values() if block.protocol})
    rewards = sorted({reward for block in benchmarks.values() for reward in reward_tasks[block.reward].values()})
    return [*(module_of("benchmark", name) for name in protocols), *(module_of("reward", name) for name in rewards)]


def measuring(
    name: str,
    block: BenchmarkBlock,
    rewards: dict[str, str],
    examples: Mapping[str, Path],
    verdicts: tuple[Path | None, ...],
) -> Measuring:
    """How a benchmark is measured.

    `rewards`: task to reward. `examples`: by dataset. `verdicts`: one table per compared policy.
    """
    if block.protocol:
        return ProtocolMetrics(name, block, rewards, examples[block.dataset], verdicts)
    return RewardMetrics(name, block, rewards)


class RewardMetrics:
    """A benchmark block that is measured by the metrics of its reward."""

    columns: tuple[str, ...] = MEASURED

    def __init__(self, name: str, block: BenchmarkBlock, rewards: dict[str, str]) -> None:
        """`rewards` maps tasks to their reward."""
        self.block = block
        self._name, self._rewards = name, rewards

    def rows(self, answers: pl.DataFrame, base_answers: pl.DataFrame | None) -> Iterator[dict[str, Any]]:
        """Metrics rows per task, view and condition, without policy, benchmark and split."""
        parts = answers.group_by("task", "view", "condition", maintain_order=True)
        for rows in together(partial(self._rows_of, key, part, base_answers) for key, part in parts):
            yield from rows

    def _rows_of(
        self, key: tuple[object, ...], part: pl.DataFrame, base_answers: pl.DataFrame | None
    ) -> list[dict[str, Any]]:
        task, view, condition = map(str, key)
        baseline = None if base_answers is None else base_answers.filter(task=task, view=view, condition=condition)
        measured = sampled_rows if condition == "sampled" else _greedy
        found = measured(part, baseline, self._rewards[task], self.block, (self._name, task, view))
        return [{"task": task, "view": view, **row} for row in found]

    def parts(self, answers: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Answers by task."""
        yield from ((str(task), part) for (task,), part in answers.group_by("task", maintain_order=True))

    def greedy(self, part: pl.DataFrame, metric: str | None = None, table_index: int = 0) -> Reading:
        """A metric of the reward."""
        found = load("reward", self._reward(part)).metrics
        name = metric or next(iter(found))
        return Reading(name, found[name].metric, columns_of(part))

    def averaged(self, part: pl.DataFrame, table_index: int = 0) -> Reading | None:
        """The first per-answer metric, averaged over the answers to each question."""
        found = per_answer(self._reward(part))
        if not found:
            return None
        name, declared = next(iter(found.items()))
        count = part["sample_index"].n_unique()
        means = each_answer(declared, columns_of(part)).reshape(-1, count).mean(axis=1)
        return Reading(name, mean_of_column, {"value": means})

    def _reward(self, part: pl.DataFrame) -> str:
        return self._rewards[part["task"][0]]

    def primary(
        self, part: pl.DataFrame, baseline: pl.DataFrame | None, address: tuple[str, ...]
    ) -> dict[str, float | None]:
        """Value and gain of the reward's first metric, for greedy answers of one task."""
        reading, base = self.greedy(part), None if baseline is None else columns_of(baseline)
        return measured_row(reading.metric, reading.columns, base, self.block, address)


def _greedy(
    part: pl.DataFrame, baseline: pl.DataFrame | None, reward: str, block: BenchmarkBlock, address: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """One row per metric of the greedy answers to one prompt."""
    columns, base = columns_of(part), None if baseline is None else columns_of(matched(baseline, part))
    shared = {"n": part.height, "n_failed": part["reason"].is_not_null().sum()}
    declared = load("reward", reward).metrics.items()
    metrics = {name: one.metric for name, one in declared if not one.only_with or one.only_with in columns}
    for metric, values in measured_rows(metrics, columns, base, block, address).items():
        yield {**condition_columns(part["condition"][0]), "metric": metric, **shared, **values}
