"""What a run asks a model, by block of the config, and how many questions that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from perceptune.contracts.config import BenchmarkBlock, Config, PairingBlock, RolloutBlock, ShapesDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import EXAMPLES
from perceptune.contracts.tables.examples import EXAMPLES as TABLE
from perceptune.contracts.tables.io import read_batches
from perceptune.planning.benchmarks import benchmark_blocks
from perceptune.planning.policies import Plan
from perceptune.planning.views import request_block

Counts = Mapping[str, Mapping[tuple[str, str], int]]
"""Dataset to the number of its questions by split and task."""


@dataclass(frozen=True)
class Turn:
    """One way of asking each question of a block."""

    prompt: str
    view: str
    answers: int
    """Answers per question."""
    max_tokens: int


@dataclass(frozen=True)
class Asked:
    """The questions that one block of the config asks a model."""

    key: str
    """Of the block, such as `samplings.n20`."""
    model: str
    dataset: str
    split: str
    tasks: tuple[str, ...]
    limit: int | None
    turns: tuple[Turn, ...]
    rewards: tuple[str, ...]
    """Reward blocks that score the answers."""
    drawn: int | None = None
    """Questions that are drawn, for a round; None: all."""

    def questions(self, counts: Counts) -> int:
        """The number of questions."""
        found = [
            number if self.limit is None else min(number, self.limit)
            for (split, task), number in counts.get(self.dataset, {}).items()
            if split == self.split and (not self.tasks or task in self.tasks)
        ]
        return sum(found) if self.drawn is None else min(self.drawn, sum(found))


def asked(plan: Plan, policy: str, plan_name: str) -> Iterator[Asked]:
    """The questions of one of a policy's request plans, see `Plan.request_plans`."""
    model = plan.base(policy)
    if plan_name == "benchmarks":
        for name, benchmark in benchmark_blocks(plan, policy).items():
            turns = _benchmark_turns(benchmark)
            yield Asked(
                f"benchmarks.{name}", model, benchmark.dataset, benchmark.split, benchmark.tasks, benchmark.limit,
                turns, (benchmark.reward,),
            )  # fmt: skip
        return
    dataset, name = plan_name.split("/")
    block = request_block(plan, name)
    if isinstance(block, PairingBlock):
        pairs = [pair for pair in (block.focus, block.robust) if pair]
        answers = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
        turns = tuple(Turn(one.prompt, one.view, 1, one.max_tokens) for one in answers)
        key, limit, drawn = "pair_generation", block.limit, None
    else:
        turns = (Turn(block.prompt, block.view, block.n, block.max_tokens),)
        in_rounds = isinstance(block, RolloutBlock)
        key = "rollout" if in_rounds else "sampling"
        limit, drawn = (None, block.questions) if isinstance(block, RolloutBlock) else (block.limit, None)
    rewards = tuple(_rewards(plan.config, key, name, dataset))
    yield Asked(f"{key}s.{name}", model, dataset, block.split, block.tasks, limit, turns, rewards, drawn)


def _benchmark_turns(block: BenchmarkBlock) -> tuple[Turn, ...]:
    """Greedy under each view, sampled, and greedy for each additional prompt."""
    first = block.views[0]
    return (
        *(Turn(block.prompt, view, 1, block.max_tokens) for view in block.views),
        *([Turn(block.prompt, first, block.n, block.max_tokens)] if block.n else []),
        *(Turn(prompt, first, 1, block.max_tokens) for prompt in block.prompts),
    )


def _rewards(config: Config, key: str, name: str, dataset: str) -> dict[str, None]:
    """The reward blocks of the experiments that sample with a block."""
    experiments = [e for e in config.experiments.values() if getattr(e, key) == name and e.dataset == dataset]
    return {experiment.reward: None for experiment in experiments if experiment.reward}


def counted(config: Config, tables: Mapping[str, Path] | None = None) -> Counts:
    """The questions of the datasets in use that are imported, or whose number the config states.

    `tables` are `examples` tables of datasets that are not imported yet.
    """
    known = {name: Path(EXAMPLES.format(dataset=name)) for name in config.used_datasets()} | dict(tables or {})
    found: dict[str, Mapping[tuple[str, str], int]] = {}
    for name in config.used_datasets():
        block = config.datasets[name]
        if isinstance(block, ShapesDataset):
            splits = {"train": block.train, "validation": block.validation, "test": block.test}
            found[name] = {(split, str(task)): n for split, tasks in splits.items() for task, n in tasks.items()}
        elif known[name].exists():
            try:
                found[name] = _counted(known[name])
            except UserError:  # the run says so
                continue
    return found


def _counted(table: Path) -> Counter[tuple[str, str]]:
    """The usable rows of a table of examples by split and task."""
    numbers: Counter[tuple[str, str]] = Counter()
    for batch in read_batches(table, TABLE, ["split", "task", "reason"]):
        kept = batch.filter(pc.is_null(batch["reason"]))
        for row in kept.group_by(["split", "task"]).aggregate([([], "count_all")]).to_pylist():
            numbers[row["split"], row["task"]] += row["count_all"]
    return numbers
