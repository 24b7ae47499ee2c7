"""Plans requests: which questions, under which view, and with which sampling parameters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perceptune.contracts.config import (
    AnswerBlock,
    BenchmarkBlock,
    ContrastBlock,
    PairingBlock,
    RolloutBlock,
    SamplingBlock,
    ViewBlock,
)
from perceptune.contracts.errors import UserError, near
from perceptune.contracts.plugins import load
from perceptune.contracts.progress import tell
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.seeds import derived_seed
from perceptune.contracts.tables.examples import TRUTH_COLUMNS
from perceptune.contracts.tables.io import write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.core.benchmarks.control_prompts import asked_as, condition_of
from perceptune.stages.data.examples import Examples
from perceptune.stages.data.leaked import refuse
from perceptune.stages.sampling.recipes import (
    Crops,
    NoCropError,
    NoSaliencyError,
    Saliencies,
    messages_for,
    recipe_of,
)
from perceptune.stages.training.round_status import Ending

DRAWING = {"n", "temperature", "top_p", "top_k", "max_tokens"}


@dataclass(frozen=True)
class Views:
    """The config's views with the crop and saliency tables that they need, by block."""

    blocks: Mapping[str, ViewBlock] = field(default_factory=dict)
    crops: Mapping[str, Path] = field(default_factory=dict)
    saliencies: Mapping[str, Path] = field(default_factory=dict)

    @property
    def tables(self) -> dict[str, Path]:
        """All tables by input name."""
        kinds = {"crops": self.crops, "saliency": self.saliencies}
        return {f"{kind} {name}": path for kind, tables in kinds.items() for name, path in tables.items()}

    def record(self) -> dict[str, Any]:
        """For the lineage."""
        return {name: block.model_dump(mode="json") for name, block in self.blocks.items()}


def run_samples(
    *,
    dataset: str,
    examples: Path,
    requests: Path,
    config: SamplingBlock,
    views: Views = Views(),
    rewards: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    refused: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Writes `requests`: one row of n sampled answers per example.

    Examples that lack what the view needs are left out. `rewards` are the tasks of the reward blocks
    that will score the answers with the reward of each, `refused` the `leakage` tables that must be
    empty, by name of the training data. Raises `UserError` for a question of another task or without a
    ground truth that its reward needs, and for leakage.
    """
    refuse(refused)
    chosen = chosen_examples(dataset, examples, config.split, config.tasks, config.limit)
    check_rewarded(f"dataset `{dataset}`", chosen, rewards, "`tasks` of the sampling")
    drawing = config.model_dump(include=DRAWING)
    planner = _Planner({dataset: views})
    rows: list[dict[str, Any]] = []
    for row in chosen:
        query = _Query(dataset, None, "sampled", config.view, config.prompt, config.seed, drawing)
        rows += planner.requests(row, query)
    planner.check(rows)
    parameters = {"sampling": config.model_dump(mode="json"), "views": views.record()}
    write_table(
        requests, REQUESTS, rows, lineage("sampling.requests", parameters, {"examples": examples, **views.tables})
    )
    print(f"{len(rows)} requests of {config.n} answers")


def run_benchmarks(
    *,
    examples: dict[str, Path],
    requests: Path,
    benchmarks: dict[str, BenchmarkBlock],
    views: dict[str, Views],
    rewards: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Writes `requests` for benchmarks: greedy under each view, `n` samples under the first view,
    and greedy under the first view for each additional prompt; all with the block's `contrast`.

    `examples` and `views` are by dataset; `rewards` are the tasks of each reward block, where
    known. Raises `UserError` for questions whose answers could not be measured.
    """
    rows: list[dict[str, Any]] = []
    planner = _Planner({block.dataset: views.get(block.dataset, Views()) for block in benchmarks.values()})
    for name, block in benchmarks.items():
        chosen = chosen_examples(block.dataset, examples[block.dataset], block.split, block.tasks, block.limit)
        check_measurable(name, block, chosen, rewards.get(block.reward))
        sampled = block.model_dump(include=DRAWING)
        greedy = {**sampled, "n": 1, "temperature": 0.0, "top_p": 1.0, "top_k": 0}
        conditions = [("greedy", view, block.prompt, greedy) for view in block.views]
        conditions += [("sampled", block.views[0], block.prompt, sampled)] if block.n else []
        conditions += [(condition_of(i), block.views[0], prompt, greedy) for i, prompt in enumerate(block.prompts, 1)]
        queries = [
            _Query(block.dataset, name, condition, view, prompt, block.seed, drawing, _amateur(block.contrast))
            for condition, view, prompt, drawing in conditions
        ]
        for row in chosen:
            for query in queries:
                rows += planner.requests(row, query)
    planner.check(rows)
    parameters = {name: block.model_dump(mode="json") for name, block in benchmarks.items()}
    inputs = examples | {f"{d} {name}": path for d, one in views.items() for name, path in one.tables.items()}
    write_table(requests, REQUESTS, rows, lineage("sampling.requests", parameters, inputs))
    print(f"{len(rows)} requests of {len(benchmarks)} benchmarks")


def check_measurable(
    name: str, block: BenchmarkBlock, chosen: list[dict[str, Any]], rewarded: Mapping[str, str] | None
) -> None:
    """Raises `UserError`, before sampling, if no reward or protocol can handle the answers."""
    about = f"benchmark `{name}`: dataset `{block.dataset}`"
    reads = load("benchmark", block.protocol).variant(block.variant).reads if block.protocol else {}
    if rewarded is not None:
        check_rewarded(about, chosen, {block.reward: rewarded}, f"`benchmarks.{name}.tasks`")
    for row in chosen:
        if columns := reads.get(row["task"]):
            source = json.loads(row["source"] or "{}")
            missing = [column for column in columns if column not in source]
            if missing:
                raise UserError(
                    f"{about}, example `{row['example_id']}` has no `{missing[0]}`, required by protocol `{block.protocol}`",
                    f"it reads {', '.join(f'`{column}`' for column in columns)}; use the importer of its dataset",
                )


def check_rewarded(
    about: str, chosen: list[dict[str, Any]], rewards: Mapping[str, Mapping[str, str]], key: str
) -> None:
    """Raises `UserError`, before sampling, for a question whose task a reward block lacks, or without
    the ground truth that its reward needs. `rewards` are by reward block and task."""
    for reward, tasks in rewards.items():
        for row in chosen:
            if row["task"] not in tasks:
                raise UserError(
                    f"{about} has questions of task `{row['task']}`, expected {', '.join(tasks)} (the tasks of reward `{reward}`)",
                    f"key {key} selects the tasks",
                )
        for task, name in tasks.items():
            asked = [row for row in chosen if row["task"] == task]
            if lacking := without_truth(asked, name):
                needs = load("reward", name).needs
                raise UserError(
                    f"{about}: {len(lacking):,} of {len(asked):,} questions of task `{task}` have no `{needs}`,"
                    f" which reward `{name}` needs, such as example `{lacking[0]['example_id']}`",
                    f"add it to their rows, or leave them out: key {key} selects the tasks",
                )


def without_truth(rows: Iterable[dict[str, Any]], reward: str) -> list[dict[str, Any]]:
    """The examples that lack the ground truth that a reward needs."""
    needs = load("reward", reward).needs
    return [row for row in rows if row[TRUTH_COLUMNS[needs]] is None] if needs else []


def run_round(
    *,
    dataset: str,
    examples: Path,
    requests: Path,
    number: int,
    before: Path | None,
    config: RolloutBlock,
    views: Views = Views(),
    rewards: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    refused: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Writes `requests`: the questions of round `number`, counted from 1, in drawing order.

    `before` is the previous round's status file, None for the first; a stopped experiment makes no
    requests. Examples are shuffled anew for every pass over them, and each round takes the next
    `questions`. A remainder smaller than a round is dropped from the pass (like `drop_last` in the
    papers' data loaders). `rewards` and `refused` as in `run_samples`.
    """
    refuse(refused)
    rows: list[dict[str, Any]] = []
    if before is None or Ending.read(before).stopped is None:
        chosen = chosen_examples(dataset, examples, config.split, config.tasks, None)
        check_rewarded(f"dataset `{dataset}`", chosen, rewards, "`tasks` of the rollout")
        taken = round_examples(chosen, config, number, dataset)
        drawing = config.model_dump(include=DRAWING)
        planner = _Planner({dataset: views})
        query = _Query(dataset, None, f"round-{number}", config.view, config.prompt, config.seed, drawing)
        rows = [request for row in taken for request in planner.requests(row, query)]
    parameters = {"rollout": config.model_dump(mode="json"), "views": views.record(), "round": number}
    write_table(requests, REQUESTS, rows, lineage("sampling.requests", parameters, {"examples": examples}))
    print(f"round {number}: {len(rows)} requests of {config.n} answers")


def round_examples(
    chosen: list[dict[str, Any]], config: RolloutBlock, number: int, dataset: str
) -> list[dict[str, Any]]:
    """The examples of a round. Raises `UserError` if the dataset has fewer than a round asks."""
    per_pass = len(chosen) // config.questions
    if not per_pass:
        raise UserError(
            f"key `questions` of the rollout: {config.questions} per round, but dataset `{dataset}` has {len(chosen)} examples of "
            f"split `{config.split}`",
            "lower `questions`",
        )
    passed, place = divmod(number - 1, per_pass)
    shuffled = sorted(chosen, key=lambda row: derived_seed("draw", config.seed, passed, row["example_id"]))
    return shuffled[place * config.questions : (place + 1) * config.questions]


def run_pairs(
    *,
    dataset: str,
    examples: Path,
    requests: Path,
    config: PairingBlock,
    views: Views,
    refused: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Writes `requests`: two per pair, with the role in column `condition`. `refused` as in
    `run_samples`."""
    refuse(refused)
    chosen = chosen_examples(dataset, examples, config.split, config.tasks, config.limit)
    planner = _Planner({dataset: views})
    rows: list[dict[str, Any]] = []
    for row in chosen:
        for kind, pair in (("focus", config.focus), ("robust", config.robust)):
            answers = [] if pair is None else [("chosen", pair.chosen), ("rejected", pair.rejected)]
            made = [
                request
                for role, answer in answers
                for request in planner.requests(row, _answer(dataset, f"{kind}_{role}", answer, config.seed))
            ]
            rows += made if len(made) == 2 else []  # needs both answers
    planner.check(rows)
    parameters = {"pairing": config.model_dump(mode="json"), "views": views.record()}
    write_table(
        requests, REQUESTS, rows, lineage("sampling.requests", parameters, {"examples": examples, **views.tables})
    )
    print(f"{len(rows)} requests for pairs of {len(chosen)} examples")


@dataclass(frozen=True)
class _Query:
    """One question with its view, prompt and sampling parameters."""

    dataset: str
    benchmark: str | None
    condition: str
    view: str
    prompt: str
    seed: int
    drawing: Mapping[str, Any]
    contrast: tuple[str, float, float] | None = None
    """View, strength, plausibility."""


def _answer(dataset: str, role: str, answer: AnswerBlock, seed: int) -> _Query:
    drawing = {"n": 1, **answer.model_dump(include=DRAWING)}
    seed, contrast = derived_seed(seed, answer.seed), _amateur(answer.contrast)
    return _Query(dataset, None, role, answer.view, answer.prompt, seed, drawing, contrast)


def _amateur(contrast: ContrastBlock | None) -> tuple[str, float, float] | None:
    return None if contrast is None else (contrast.view, contrast.strength, contrast.plausibility)


class _Planner:
    """Turns examples into requests, and counts those that cannot be made."""

    def __init__(self, views: Mapping[str, Views]) -> None:
        """`views` are by dataset."""
        self._blocks = {dataset: one.blocks for dataset, one in views.items()}
        self._crops = {dataset: Crops(one.crops) for dataset, one in views.items()}
        self._saliencies = {dataset: Saliencies(one.saliencies) for dataset, one in views.items()}
        self.left_out: Counter[str] = Counter()

    def requests(self, row: Mapping[str, Any], query: _Query) -> Iterator[dict[str, Any]]:
        """The request; nothing if the example lacks what the view needs."""
        try:
            yield self._request(row, query)
        except (NoCropError, NoSaliencyError) as missing:
            self.left_out[f"view `{query.view}`: {missing}"] += 1

    def check(self, rows: list[dict[str, Any]]) -> None:
        """Prints what was left out.

        Raises `UserError` if nothing is left.
        """
        for reason, count in sorted(self.left_out.items()):
            tell(f"{count} questions left out: {reason}")
        if not rows:
            raise UserError("no requests are left", "; ".join(self.left_out) or None)

    def _recipe(self, row: Mapping[str, Any], dataset: str, view: str) -> Any:
        blocks, example = self._blocks[dataset], row["example_id"]
        box = self._crops[dataset].box_for(view, blocks, example)
        salient = self._saliencies[dataset].for_view(view, blocks, example)
        return recipe_of(view, blocks, row["image_sha256"], box, saliencies=salient)

    def _request(self, row: Mapping[str, Any], query: _Query) -> dict[str, Any]:
        recipe = self._recipe(row, query.dataset, query.view)
        text = asked_as(query.prompt, row["question"], row["task"])
        contrast = None
        if query.contrast:
            view, strength, plausibility = query.contrast
            amateur = self._recipe(row, query.dataset, view).text()
            contrast = {"recipe": amateur, "strength": strength, "plausibility": plausibility}
        parts = [query.benchmark or query.dataset, row["example_id"], query.view, query.condition]
        # The seed ignores n, so that the first answers of many equal the answers of few. It
        # includes the example's id, since two rows with the same question and image must draw
        # differently.
        drawing = [v for k, v in query.drawing.items() if k != "n"]
        drawn = derived_seed("sampling", query.seed, *row["image_sha256"], text, *parts[1:], *drawing)
        return {
            "request_id": "/".join(parts),
            "example_id": row["example_id"],
            "dataset": query.dataset,
            "benchmark": query.benchmark,
            "condition": query.condition,
            "view": query.view,
            "recipe": recipe.text(),
            "contrast": contrast,
            "messages": messages_for(text, recipe, len(row["image_sha256"])),
            "seed": drawn,
            **query.drawing,
        }


def chosen_examples(
    dataset: str, examples: Path, split: str, tasks: tuple[str, ...], limit: int | None
) -> list[dict[str, Any]]:
    """Usable examples of the split and tasks, at most `limit` per task, in order, without images.

    Raises `UserError` if there are none.
    """
    known = Examples(examples)
    chosen = known.selected(split, tasks, limit)
    if not chosen:
        rows = known.table(["split", "task"]).to_pylist()
        available = sorted({f"{row['split']}/{row['task']}" for row in rows})
        selected = f"split `{split}`" + (f" and tasks {', '.join(tasks)}" if tasks else "")
        splits = {row["split"] for row in rows}
        hint = "`test_share: 0.2` in the dataset block holds out a fifth of the images"
        raise UserError(
            f"dataset `{dataset}` has no examples of {selected}; it has {', '.join(available) or 'no usable ones'}",
            None if split in splits else hint if split == "test" and "train" in splits else near(split, splits),
        )
    return chosen
