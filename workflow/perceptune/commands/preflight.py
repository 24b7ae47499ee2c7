"""What sampling and training will do with the questions and answers of datasets.

Uses the code of the stages with tokenizer and image sizes, but without weights and pixels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perceptune.contracts.config import PLAIN_VIEWS, Config, GivenBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.contracts.progress import Progress
from perceptune.contracts.quarantine import exceeded
from perceptune.core.benchmarks.control_prompts import asked_as
from perceptune.core.views.apply import pictures_shown
from perceptune.core.views.view import Recipe
from perceptune.models.families.family import check_room
from perceptune.planning.benchmarks import rewards_by_task
from perceptune.planning.policies import Plan
from perceptune.planning.questions import Asked, Turn, asked
from perceptune.planning.views import views_trained
from perceptune.stages.preferences.dataset_preferences import given_lists
from perceptune.stages.sampling.recipes import messages_for, recipe_of
from perceptune.stages.sampling.requests import (
    check_measurable,
    check_rewarded,
    chosen_examples,
    round_examples,
)
from perceptune.stages.training.encodable import Prompts

Row = Mapping[str, Any]
Advance = Callable[[int], object]
LONG = "prompt and `max_tokens` exceed `max_model_len`"


@dataclass(frozen=True)
class Finding:
    """What the run will do with some rows."""

    text: str
    stops: bool = False
    """Whether the run ends with an error; otherwise it leaves rows out."""


@dataclass
class _Asking:
    """A block that asks questions, and what becomes of them."""

    block: Asked
    chosen: list[dict[str, Any]]
    reasons: dict[str, str] = field(default_factory=dict)
    """Example to the first reason why it, or some of its prompts, are left out."""
    longest: int = 0
    """Tokens that the longest prompt and its answer need, if they exceed `max_model_len`."""
    missing: int = 0
    """Answers that there will not be."""

    @property
    def total(self) -> int:
        """All answers."""
        return len(self.chosen) * sum(turn.answers for turn in self.block.turns)


def findings(plan: Plan, models: Sequence[str], tables: Mapping[str, Path]) -> Iterator[Finding]:
    """What a run would leave out, and what would stop it, for these models and the datasets with these
    `examples` tables."""
    config = plan.config
    for model in models:
        try:
            prompts = PromptLengths(config.models[model])
        except UserError as error:
            yield Finding(_with_hint(error), stops=True)
            continue
        plans: list[list[_Asking]] = []
        for name in plan.request_plans(model):
            plans.append([])
            for block in asked(plan, model, name):
                if block.dataset not in tables:
                    continue
                try:
                    plans[-1].append(_Asking(block, _chosen(block, config, tables[block.dataset])))
                except UserError as error:
                    yield Finding(f"`{block.key}`: {_with_hint(error)}", stops=True)
        askings = [asking for made in plans for asking in made]
        number = sum(len(asking.chosen) * len(asking.block.turns) for asking in askings)
        with Progress(f"checking prompts of {model}", number, "prompts") as progress:
            for asking in askings:
                _ask(asking, config, prompts, progress.advance)
        for made in plans:
            yield from _left_out(made, config)
        yield from _trained(plan, model, tables, prompts)


def _with_hint(error: UserError) -> str:
    return f"{error.args[0]}; {error.hint}" if error.hint else str(error.args[0])


class PromptLengths(Prompts):
    """Lengths of prompts; each text is tokenized once."""

    def __init__(self, model: ModelBlock) -> None:
        """Raises `UserError` if the processor cannot be loaded or is not understood."""
        super().__init__(model)
        self.family.check(self.processor)
        self._texts: dict[tuple[str, int], int | str] = {}

    def needed(self, text: str, recipe: Recipe, row: Row) -> int:
        """Tokens of a prompt. Raises `ValueError` if it cannot be encoded."""
        sizes = tuple((width, height) for width, height in row["image_sizes"])
        key = text, pictures_shown(recipe, len(sizes))
        if key not in self._texts:
            try:
                messages = messages_for(text, recipe, len(sizes))
                self._texts[key] = len(self.family.prompt_ids(self.processor, messages))
            except ValueError as error:
                self._texts[key] = str(error)
        found = self._texts[key]
        if isinstance(found, str):
            raise ValueError(found)
        return found + self.images(recipe, sizes)


def _chosen(block: Asked, config: Config, examples: Path) -> list[dict[str, Any]]:
    """The questions of a block. Raises `UserError` if the run would stop before it asks them."""
    section, _, name = block.key.partition(".")
    chosen = chosen_examples(block.dataset, examples, block.split, block.tasks, block.limit)
    tasks = {reward: rewards_by_task(config.rewards[reward]) for reward in block.rewards}
    if section == "benchmarks":
        check_measurable(name, config.benchmarks[name], chosen, tasks[config.benchmarks[name].reward])
    else:
        check_rewarded(f"dataset `{block.dataset}`", chosen, tasks, f"`{block.key}.tasks`")
    if section == "rollouts":
        round_examples(chosen, config.rollouts[name], 1, block.dataset)
    return chosen


def _ask(asking: _Asking, config: Config, prompts: PromptLengths, advance: Advance) -> None:
    """Finds what the sampler will refuse."""
    turns = asking.block.turns
    for row in asking.chosen:
        refused = []
        for turn in turns:
            length = 0
            try:
                length = prompts.needed(_text(turn, row), _recipe(turn.view, row, config), row)
                check_room(length, turn.max_tokens, prompts.model)
            except ValueError as error:
                refused.append(_sort(str(error)))
                asking.missing += turn.answers
                asking.longest = max(asking.longest, length + turn.max_tokens if length else 0)
            advance(1)
        if refused:
            part = f" in {len(refused)} of {len(turns)} prompts" if len(refused) < len(turns) else ""
            asking.reasons[row["example_id"]] = refused[0] + part


def _text(turn: Turn, row: Row) -> str:
    return asked_as(turn.prompt, row["question"], row["task"])


def _recipe(view: str, row: Row, config: Config) -> Recipe:
    """The recipe of a view, as far as it decides on number and sizes of images.

    Crops are not known before attention maps are: the whole image stands for them.
    """
    kinds = [] if view in PLAIN_VIEWS else [config.views[one].type for one in (view, *config.views[view].choice)]
    if any(kind and load("view", kind).needs_saliency for kind in kinds):
        return Recipe("original")  # a mask keeps sizes
    box = (0.0, 0.0, *map(float, row["image_sizes"][0])) if row["image_sizes"] else None
    return recipe_of(view, config.views, row["image_sha256"], box)  # type: ignore[arg-type]


def _sort(reason: str) -> str:
    """The reason without the lengths of a single prompt."""
    return LONG if re.match(r"prompt of \d+ tokens and \d+ new ones exceed max_model_len", reason) else reason


def _left_out(plans: Sequence[_Asking], config: Config) -> Iterator[Finding]:
    """Findings on the askings of one table of requests."""
    asked_for, missing = sum(asking.total for asking in plans), sum(asking.missing for asking in plans)
    nothing = "no question can be sampled: " if asked_for and missing == asked_for else ""
    for asking in plans:
        block = asking.block
        what = f"`{block.key}`, dataset `{block.dataset}`, model `{block.model}`"
        room = f"raise `models.{block.model}.max_model_len` ({asking.longest} tokens are needed) or lower `max_tokens`"
        for text in _by_reason(asking.reasons, len(asking.chosen), "questions", {LONG: room}):
            yield Finding(f"{what}: {nothing}{text}", stops=bool(nothing))
    if nothing:
        return
    for reward in {reward: None for asking in plans for reward in asking.block.rewards}:
        scored = [asking for asking in plans if reward in asking.block.rewards]
        missing, total = sum(asking.missing for asking in scored), sum(asking.total for asking in scored)
        limits = config.rewards[reward]
        if limit := exceeded(missing, total, limits.max_failed_share, limits.max_failed_rows):
            keys = ", ".join(f"`{asking.block.key}`" for asking in scored if asking.missing)
            yield Finding(
                f"`rewards.{reward}`: {missing:,} of {total:,} answers to {keys} will be missing, at most {limit} may: "
                "scoring stops after all others are sampled; correct the rows, or raise the limit",
                stops=True,
            )


def _by_reason(reasons: Mapping[str, str], total: int, what: str, advice: Mapping[str, str]) -> Iterator[str]:
    """A text per reason: how many examples, why, the first one, what to do."""
    first = {_like(reason): (name, reason) for name, reason in reversed([*reasons.items()])}
    for like, count in Counter(map(_like, reasons.values())).items():
        name, reason = first[like]
        known = {" contains the model's ": "remove it to keep them", **advice}
        hint = next((what_to_do for part, what_to_do in known.items() if part in reason), None)
        more = f"; {hint}" if hint else ""
        yield f"{count:,} of {total:,} {what}: {reason}, such as example `{name}`{more}"


def _like(reason: str) -> str:
    """Equal for reasons that differ only in numbers outside of quotes."""
    return re.sub(r"`[^`]*`|\d[\d.]*", lambda found: found[0] if found[0].startswith("`") else "#", reason)


def _trained(plan: Plan, model: str, tables: Mapping[str, Path], prompts: PromptLengths) -> Iterator[Finding]:
    """What training on given answers and ground truths will leave out, and views that cannot be
    encoded."""
    config = plan.config
    done: set[tuple[Any, ...]] = set()
    for name, experiment in config.experiments.items():
        if experiment.model != model or experiment.dataset not in tables:
            continue
        if given := experiment.dataset_preference:
            if (given, experiment.dataset) not in done:
                block, table = config.dataset_preferences[given], tables[experiment.dataset]
                yield from _given(given, experiment.dataset, table, block, prompts)
            done.add((given, experiment.dataset))
        policy = (plan.rounds(name) or [name])[0]
        training = config.trainings[experiment.training]
        method = load("method", training.method)
        truths = method.wants_ground_truth(method.Parameters.model_validate(training.parameters))
        views = tuple(dict.fromkeys(views_trained(plan, policy)))
        section = experiment.made_of[0]
        source = f"{section}s.{getattr(experiment, section)}"
        key = source, experiment.dataset, views, training.view if truths else None
        if section != "pair_generation" and key not in done:  # the views of pairs are those asked under
            yield from _learnt(
                plan, name, tables[experiment.dataset], views, training.view if truths else None, prompts
            )
        done.add(key)


def _given(name: str, dataset: str, table: Path, block: GivenBlock, prompts: PromptLengths) -> Iterator[Finding]:
    about = f"`dataset_preferences.{name}`, dataset `{dataset}`"
    try:
        chosen = chosen_examples(dataset, table, block.split, block.tasks, block.limit)
    except UserError as error:
        yield Finding(f"{about}: {_with_hint(error)}", stops=True)
        return
    lists, _ = given_lists(chosen, block, prompts)
    reasons = dict(lists.filter(lists["reason"].is_not_null()).select("request_id", "reason").iter_rows())
    advice = {"prompt and answer exceed max_model_len": "raise it, or shorten the answers"}
    for text in _by_reason(reasons, lists.height, "lists", advice):
        yield Finding(f"{about}: {text}")
    if len(reasons) == lists.height:
        yield Finding(f"{about}: no list is kept, so there is nothing to train on", stops=True)


def _learnt(
    plan: Plan, name: str, table: Path, views: Sequence[str], truth: str | None, prompts: PromptLengths
) -> Iterator[Finding]:
    """Questions of an experiment that training leaves out although their answers may be sampled.

    `truth` is the training view if the ground truth is learnt.
    """
    config, experiment = plan.config, plan.config.experiments[name]
    section = experiment.made_of[0]
    block = getattr(config, f"{section}s")[getattr(experiment, section)]
    asked_under, new = getattr(block, "view", "original"), getattr(block, "max_tokens", 0)
    if truth is None and set(views) <= {asked_under}:
        return
    try:
        chosen = chosen_examples(experiment.dataset, table, block.split, block.tasks, getattr(block, "limit", None))
    except UserError:
        return  # already found
    about = f"experiment `{name}`, dataset `{experiment.dataset}`"
    reasons, refused = {}, 0
    with Progress(f"checking what {name} learns", len(chosen), "questions") as progress:
        for row in chosen:
            text = asked_as(block.prompt, row["question"], row["task"])
            progress.advance()
            try:
                check_room(prompts.needed(text, _recipe(asked_under, row, config), row), new, prompts.model)
            except ValueError:
                refused += 1  # a finding on the questions
                continue
            try:
                for view in views:
                    prompts.needed(text, _recipe(view, row, config), row)
                if truth:
                    prompts.ground_truth(row, prompts.needed(text, _recipe(truth, row, config), row))
            except ValueError as error:
                reasons[row["example_id"]] = str(error)
            except UserError as error:  # no coordinates for a box
                yield Finding(f"{about}, in training: example `{row['example_id']}`: {_with_hint(error)}", stops=True)
                return
    advice = {"prompt and ground truth exceed max_model_len": f"raise `models.{experiment.model}.max_model_len`"}
    for text in _by_reason(reasons, len(chosen), "questions", advice):
        yield Finding(f"{about}, in training: {text}")
    if len(reasons) + refused == len(chosen):
        yield Finding(f"{about}: no question is left to train on", stops=True)
