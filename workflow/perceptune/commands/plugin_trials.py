"""Calls the user's plug-ins with little input, so that no mistake of theirs shows only after sampling or
training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perceptune.contracts.config import ModelBlock, TrainingBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import brought, load, place_in_plugin
from perceptune.core.benchmarks.benchmark import Answered, Benchmark, protocol_of, unit_columns
from perceptune.core.data.source_columns import Columns
from perceptune.core.methods.method import GroupMethod
from perceptune.core.methods.scalar import NOT_QUERIED, scalar
from perceptune.core.rewards.reward import Answers, Reward, Scores
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe, pixel_digest
from perceptune.engines.training.groups import RankedList
from perceptune.engines.training.trainer import group_of
from perceptune.models.coordinates import coordinate_frame, resized_sizes
from perceptune.planning.benchmarks import rewards_by_task
from perceptune.planning.policies import Plan
from perceptune.planning.questions import Asked, asked
from perceptune.stages.preferences.score import parsed_json, scores_of
from perceptune.stages.sampling.requests import chosen_examples, without_truth
from perceptune.stages.training.looks import MethodLooks

QUESTIONS = 16
"""Questions of each task that get made-up answers."""
SAID = ("", "I cannot tell.")
"""Answers besides the ground truth."""
ALONE = 3
"""Answers that are also scored alone: those to the first question."""
LISTS = ((1.0, 0.6, 0.3, 0.0), (1.0, 0.0))
"""Rewards of made-up lists."""
SIZE = (640, 448)
"""Width and height in pixels of a made-up picture; another one is upright."""
SEEDS = (0, 0, 1, 2, 3, 4)

Row = Mapping[str, Any]


def mistakes(plan: Plan, models: Sequence[str], tables: Mapping[str, Path]) -> Iterator[str]:
    """A line per plug-in of the user that fails.

    Views get small pictures, methods on ranked lists log-probs of made-up lists, rewards and benchmarks
    made-up answers to the first questions of the datasets with these `examples` tables. Nothing else
    is called: rollout methods, methods on pairs and views with a saliency map need more than that.
    """
    failed: set[tuple[str, str]] = set()
    for kind, name, key, call in _trials(plan, models, tables, failed):
        if (kind, name) not in failed and (mistake := _mistake(call)) is not None:
            failed.add((kind, name))
            about = "" if f"`{name}`" in mistake else f"{kind} `{name}`: "
            yield f"`{key}`: {about}{mistake}"


def _mistake(call: Callable[[], object]) -> str | None:
    try:
        call()
    except UserError as error:
        return f"{error.args[0]}; {error.hint}" if error.hint else str(error.args[0])
    except Exception as error:  # a plug-in may raise anything
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "  # ours say what is wrong
        return place_in_plugin(error) or f"{kind}{error}".strip().splitlines()[0]
    return None


def _trials(
    plan: Plan, models: Sequence[str], tables: Mapping[str, Path], failed: set[tuple[str, str]]
) -> Iterator[tuple[str, str, str, Callable[[], object]]]:
    """Kind and name of a plug-in, the key that names it, and how to try it."""
    config = plan.config
    for name, view in config.views.items():
        if view.type and brought("view", view.type):
            yield "view", view.type, f"views.{name}.type", partial(_try_view, view)
    for name, training in config.trainings.items():
        if brought("method", training.method):
            yield "method", training.method, f"trainings.{name}.method", partial(_try_method, training)
    for model in models:
        for block in (one for name in plan.request_plans(model) for one in asked(plan, model, name)):
            for rewards in block.rewards:
                tasks = rewards_by_task(config.rewards[rewards])
                scoring = _Scoring(config.models[model], tasks, config.rewards[rewards].resources)
                own = [task for task, reward in tasks.items() if brought("reward", reward)]
                protocol = _own_protocol(plan, block)
                if not (own or protocol) or block.dataset not in tables:
                    continue
                rows = _rows(block, tables[block.dataset], tasks)
                for task in own:
                    if of_task := [row for row in rows if row["task"] == task]:
                        yield "reward", tasks[task], f"rewards.{rewards}.tasks.{task}", partial(scoring.said, of_task)
                scored = not any(("reward", tasks[row["task"]]) in failed for row in rows)
                if protocol and rows and scored:
                    call = partial(_try_benchmark, protocol, rows, scoring)
                    yield "benchmark", protocol.name, f"{block.key}.protocol", call


def _own_protocol(plan: Plan, block: Asked) -> Benchmark | None:
    """The protocol of a benchmark's block, if it is the user's and no judge is asked."""
    section, _, name = block.key.partition(".")
    if section != "benchmarks":
        return None
    benchmark = plan.config.benchmarks[name]
    own = benchmark.protocol is not None and brought("benchmark", benchmark.protocol)
    return protocol_of(benchmark) if own and not benchmark.judge else None


def _rows(block: Asked, table: Path, rewards: Mapping[str, str]) -> list[Row]:
    """The first questions of a block that can be scored, by task."""
    limit = QUESTIONS if block.limit is None else min(block.limit, QUESTIONS)
    try:
        chosen = chosen_examples(block.dataset, table, block.split, block.tasks, limit)
    except UserError:
        return []  # the check of the questions says so
    rows: list[Row] = []
    for task, found in groupby(sorted(chosen, key=_task), key=_task):
        if task in rewards:
            of_task = list(found)
            lost = [row["example_id"] for row in without_truth(of_task, rewards[task])]
            rows += [row for row in of_task if row["example_id"] not in lost]
    return rows


def _task(row: Row) -> str:
    return str(row["task"])


class _Scoring:
    """The rewards of a block, for one model."""

    def __init__(self, model: ModelBlock, tasks: Mapping[str, str], resources: str | None) -> None:
        self._model, self._tasks = model, tasks
        self._resources = Path(resources) if resources else None

    def said(self, rows: Sequence[Row]) -> None:
        """Scores some answers to each question of a task, together and, the first few, one by one."""
        reward = self._reward(rows)
        of, texts = [row for row in rows for _ in (0, *SAID)], [t for row in rows for t in (_truth(row), *SAID)]
        together = self.scores(of, texts)
        parsed_json(reward, together)
        _check_finite(reward, together)
        for place in range(min(len(texts), ALONE)):
            alone = self.scores(of[place : place + 1], texts[place : place + 1])
            pair = together.rewards[place], alone.rewards[0]
            if not np.isclose(*pair, equal_nan=True):
                raise UserError(
                    f"reward `{reward.name}` is {pair[0]:g} for the answer {texts[place]!r:.60} among others and"
                    f" {pair[1]:g} for it alone, expected the same",
                    "answers come in batches of any size, so compare none with others, and draw no random numbers",
                )

    def scores(self, rows: Sequence[Row], texts: Sequence[str]) -> Scores:
        """The scores of an answer to each of these questions of a task."""
        lost = np.nan
        sizes = np.array([(row["image_sizes"] or [(lost, lost)])[0] for row in rows], dtype=float)
        boxes = np.array([row["box"] or (lost,) * 4 for row in rows], dtype=float)
        frame = coordinate_frame(self._model)
        answers = Answers(
            texts=texts,
            targets=[row["target"] for row in rows],
            boxes=boxes,
            sizes=sizes,
            frame=frame,
            resized=resized_sizes(self._model, sizes) if frame == "resized_pixels" else None,
            sources=[Columns(row["example_id"], row["source"]) for row in rows],
            resources=self._resources,
        )
        return scores_of(self._reward(rows), answers)

    def _reward(self, rows: Sequence[Row]) -> Reward:
        reward: Reward = load("reward", self._tasks[rows[0]["task"]])
        return reward


def _check_finite(reward: Reward, scores: Scores) -> None:
    """Raises `UserError` if all rewards, or a metric of the components, are not finite."""
    if not np.isfinite(scores.rewards).any():
        raise UserError(f"reward `{reward.name}` is {scores.rewards[0]} for all answers that were tried")
    for name, declared in reward.metrics.items():
        if declared.only_with is not None and declared.only_with not in scores.components:
            continue
        if not np.isfinite(value := declared.metric(scores.components)):
            raise UserError(
                f"reward `{reward.name}`: metric `{name}` of the answers that were tried is {value}",
                "components are finite, also those of an answer that cannot be read",
            )


def _truth(row: Row) -> str:
    return json.dumps(row["box"]) if row["target"] is None else str(row["target"])


def _try_benchmark(benchmark: Benchmark, rows: Sequence[Row], scoring: _Scoring) -> None:
    """Measures the true answers, and then none at all."""
    answers = [one for _, of_task in groupby(rows, key=_task) for one in _answered(list(of_task), scoring)]
    lost = [replace(one, text=None, parsed=None, components={}, reason="no answer") for one in answers]
    for some in (answers, lost):
        unit_columns(benchmark, some)
        for measured in benchmark.metrics.values():
            sum(measured.failed(one) for one in some if measured.of(one))


def _answered(rows: Sequence[Row], scoring: _Scoring) -> Iterator[Answered]:
    texts = [_truth(row) for row in rows]
    scores = scoring.scores(rows, texts)
    for place, (row, text, parsed) in enumerate(zip(rows, texts, scores.parsed_json(), strict=True)):
        yield Answered(
            example_id=row["example_id"],
            task=row["task"],
            question=row["question"],
            text=text,
            target=row["target"],
            parsed=None if parsed is None else json.loads(parsed),
            components={name: float(values[place]) for name, values in scores.components.items()},
            reason=scores.reasons[place],
            source=Columns(row["example_id"], row["source"]),
        )


def _try_view(block: ViewBlock) -> None:
    assert block.type
    view = load("view", block.type)
    if view.needs_saliency:
        return
    parameters = view.Parameters.model_validate(block.parameters).model_dump(mode="json")
    wide = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    pictures = [wide, wide.transpose(Image.Transpose.ROTATE_90)]
    box = (160.0, 112.0, 400.0, 336.0) if view.needs_box else None
    given = pixel_digest(pictures)
    digests = [pixel_digest(shown(Recipe(block.type, parameters, seed, box), pictures)) for seed in SEEDS]
    if pixel_digest(pictures) != given:
        raise UserError(
            "it changes the images that it is given, which other views are made of", "draw on `image.copy()`"
        )
    if digests[0] != digests[1]:
        raise UserError(
            "the same seed gives other pixels", "draw all random numbers from a generator seeded with `seed`"
        )
    if len(set(digests)) > 1 and not view.seeded:
        raise UserError("it uses `seed` but does not declare `seeded = True`, so every image would get the seed 0")


def _try_method(block: TrainingBlock) -> None:
    method = load("method", block.method)
    parameters = method.Parameters.model_validate(block.parameters)
    if not isinstance(method, GroupMethod) or method.groups != "lists" or method.wants_ground_truth(parameters):
        return
    stored = method.stored(parameters, block.view)
    for rewards in LISTS:
        looks = MethodLooks(block.method, block.parameters, block.view).of(rewards, {})
        if not looks:
            continue
        known = [-2.0 - place for place in range(len(rewards))]
        reference = {one.view: known for one in stored} or None
        one = RankedList("made up", (), {}, [[1, 2, 3]] * len(rewards), rewards, reference)
        policy = [torch.tensor([known[i] + 0.1 * i for i in look.responses], requires_grad=True) for look in looks]
        group = group_of(one, looks, policy, block.view)
        loss = scalar(method.loss(group, parameters), block.method, policy[0])
        if not torch.isfinite(loss):
            raise UserError(f"the loss of a made-up list is {loss.item()}", NOT_QUERIED)
        loss.backward()
        if not all(found.grad is None or torch.isfinite(found.grad).all() for found in policy):
            raise UserError("the gradient of the loss of a made-up list is not finite")
        with torch.no_grad():
            for value in method.metrics(group, parameters).values():
                float(value)
