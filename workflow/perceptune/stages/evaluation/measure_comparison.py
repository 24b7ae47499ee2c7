"""The metrics of one comparison, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perceptune.contracts.config import BenchmarkBlock, ComparisonBlock
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.compared import COMPARED
from perceptune.contracts.tables.comparisons import COMPARISONS
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.core.comparisons.measures import Judgement, measured
from perceptune.core.comparisons.rubrics import Reading
from perceptune.stages.evaluation.evaluate import measuring
from perceptune.stages.evaluation.judged_answers import judged_by
from perceptune.stages.evaluation.metric_rows import answers_of

ALL = "all"
CHOSEN = ("chosen", "rejected")


def run(
    *,
    comparison: str,
    config: ComparisonBlock,
    comparisons: Path,
    compared: Path | None = None,
    block: BenchmarkBlock | None = None,
    rewards: tuple[Path, Path] | None = None,
    verdicts: tuple[Path, ...] = (),
    reward_tasks: Mapping[str, str] = MappingProxyType({}),
    examples: Path | None = None,
) -> None:
    """Writes the table `comparisons` of one comparison.

    With a judge, its verdicts are in `compared`. Without one, the metrics of the benchmark `block`
    are compared: `rewards` are the scored answers of both policies, `verdicts` those of the
    benchmark's own judge on them, `reward_tasks` the reward of each task.
    """
    one, other = config.policies or CHOSEN
    fixed = {
        "comparison": comparison,
        "source": config.benchmark or config.experiment,
        "one": one,
        "other": other,
    }
    inputs: dict[str, Path] = {}
    if compared is not None:
        inputs["compared"] = compared
        rows = list(_judged(compared, comparison, config))
    else:
        assert rewards and block and examples
        inputs |= {f"rewards of {p}": path for p, path in zip((one, other), rewards, strict=True)}
        inputs |= {f"verdicts on {p}": path for p, path in zip((one, other), verdicts, strict=False)}
        inputs["examples"] = examples
        rows = list(_differences(str(config.benchmark), block, config, rewards, verdicts, dict(reward_tasks), examples))
    parameters = {"comparison": comparison, "config": config.model_dump(mode="json")}
    plugins = [module_of("benchmark", block.protocol)] if block and block.protocol else []
    plugins += [module_of("reward", name) for name in sorted(set(reward_tasks.values()))]
    table = [{**dict.fromkeys(COMPARISONS.columns), **fixed, **row} for row in rows]
    write_table(comparisons, COMPARISONS, table, lineage("evaluation.measure_comparison", parameters, inputs, plugins))


def _judged(compared: Path, comparison: str, config: ComparisonBlock) -> Iterator[dict[str, Any]]:
    """Rows of all pairs together, and of each kind if there are several."""
    table = read_table(compared, COMPARED).to_pylist()
    judge = judged_by(str(config.judge), compared, COMPARED)
    kinds = list(dict.fromkeys(row["kind"] for row in table))
    for part in (ALL, *(kinds if len(kinds) > 1 else [])):
        rows = [row for row in table if part in (ALL, row["kind"])]
        found = measured(
            [_judgement(row) for row in rows],
            of_pairs=config.experiment is not None,
            both_orders=config.orders == "both",
            grades=config.rubric == "grades",
            resamples=config.resamples,
            seed=derived_seed("bootstrap", config.seed, comparison, part),
        )
        shared = {"part": part, "judge": judge, "n": len(rows), "n_failed": sum(row["outcome"] is None for row in rows)}
        for metric, value in found.items():
            yield {
                **shared,
                "metric": metric,
                "count": value.count,
                "of": value.of,
                "value": _known(value.value),
                "ci_low": _known(value.low),
                "ci_high": _known(value.high),
                "reason": "no verdict that this share is of" if math.isnan(value.value) else None,
            }


def _judgement(row: Mapping[str, Any]) -> Judgement:
    reading = None
    if row["outcome"] is not None:
        grades = None if row["grade"] is None else (row["grade"], row["other_grade"])
        reading = Reading(row["outcome"], grades)
    return Judgement(row["example_id"], row["item"], row["one_first"], reading, row["dropped"], bool(row["model"]))


def _differences(
    benchmark: str,
    block: BenchmarkBlock,
    config: ComparisonBlock,
    rewards: tuple[Path, Path],
    verdicts: tuple[Path, ...],
    reward_tasks: dict[str, str],
    examples: Path,
) -> Iterator[dict[str, Any]]:
    """Every metric of the benchmark for both policies, with the paired difference."""
    own = block.model_copy(update={"seed": config.seed, "resamples": config.resamples})
    judged = verdicts or (None, None)
    measuring_block = measuring(benchmark, own, reward_tasks, {block.dataset: examples}, judged)
    one, other = (answers_of(path, benchmark, measuring_block.columns) for path in rewards)
    conditions = other["condition"].unique().to_list()
    one = one.filter(one["condition"].is_in(conditions))  # only base models answer other prompts
    renamed = {
        "base_value": "other_value",
        "gain": "difference",
        "gain_ci_low": "difference_ci_low",
        "gain_ci_high": "difference_ci_high",
        "task": "part",
    }
    found = [row for row in measuring_block.rows(one, other) if not row["metric"].endswith("_run_std")]
    found.sort(key=lambda row: (row["condition"] != "greedy", block.views.index(row["view"])))  # the primary row first
    yield from ({renamed.get(name, name): value for name, value in row.items()} for row in found)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
