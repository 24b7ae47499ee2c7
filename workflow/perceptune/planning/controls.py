"""The switch `controls`: what is asked and trained besides, so that the report can say what explains a gain."""

from __future__ import annotations

import json
from typing import Any

from perceptune.contracts.config import (
    UNTRACKED,
    BenchmarkBlock,
    Config,
    ControlsBlock,
    ExperimentBlock,
    TrainingBlock,
    ViewBlock,
)
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.core.methods.sft import SFT

TWIN: dict[str, Any] = {"method": SFT.name, "parameters": {"source": "best_of_n"}}
"""What supervised fine-tuning on the best answer of each list changes in a training block; the rest is the budget."""
WHY_NONE = {
    "pairs": "it learns from pairs, which have no best of several answers",
    "rollouts": "it learns in rounds from its own answers, of which no list of the base model's is kept",
}
"""What a method learns from to the words for why an experiment has no twin."""


def with_controls(config: Config) -> Config:
    """A valid config with all that its `controls` ask for: views, prompts and samples of benchmarks, and experiments.

    Raises `UserError` where a name that it needs is taken by something else.
    """
    if config.controls is None:
        return config
    asked = _with_questions(config, config.controls)
    return _with_twins(asked) if config.controls.sft_on_best else asked


def twins(config: Config) -> dict[str, str]:
    """Experiment to the one with the same lists and the same budget that learns the best answer of each, where there is one."""
    learners: dict[str, str] = {}
    for name in config.experiments:
        if _learns_best(config, name):
            learners.setdefault(_budget(config, name), name)
    others = [name for name in config.experiments if not _learns_best(config, name)]
    return {name: learners[budget] for name in others if (budget := _budget(config, name)) in learners}


def why_no_twin(config: Config, experiment: str) -> str:
    """In words, why an experiment has no twin; empty where it can have one or is one."""
    return WHY_NONE.get(load("method", _training(config, experiment).method).groups, "")


def gaussian_sigma(view: ViewBlock) -> float | None:
    """The sigma of a view that lays Gaussian noise on pixels; None for another view."""
    if view.type != "noise" or view.parameters.get("kind", "gaussian") != "gaussian":
        return None
    return float(view.parameters.get("sigma", 0.1) or 0.0)


def _with_questions(config: Config, controls: ControlsBlock) -> Config:
    """Benchmarks that experiments use get views, prompts and samples; new views are defined."""
    used = {b for experiment in config.experiments.values() for b in experiment.benchmarks}
    views, benchmarks = dict(config.views), dict(config.benchmarks)
    for name in (b for b in config.benchmarks if b in used):
        block = benchmarks[name]
        shown = [*block.views, *(["blank"] if controls.blank else [])]
        there = {gaussian_sigma(views[view]) for view in block.views if view in views}
        shown += [_noisy(sigma, views) for sigma in controls.sigmas if sigma not in there]
        asked = block.prompts or _others(block, controls)
        update = {"views": tuple(dict.fromkeys(shown)), "n": max(block.n, controls.n), "prompts": asked}
        benchmarks[name] = block.model_copy(update=update)
    return config.model_copy(update={"views": views, "benchmarks": benchmarks})


def _others(block: BenchmarkBlock, controls: ControlsBlock) -> tuple[str, ...]:
    """Prompts besides the benchmark's own."""
    return tuple(prompt for prompt in dict.fromkeys(controls.prompts) if prompt != block.prompt)


def _noisy(sigma: float, views: dict[str, ViewBlock]) -> str:
    """The name of a view with noise of this sigma on images of their own size; defined if there is none."""
    for name, view in views.items():
        if gaussian_sigma(view) == sigma and view.parameters.get("side") is None:
            return name
    name = f"noise-{sigma:g}"
    if name in views:
        raise UserError(
            f"config\n  key `views.{name}`: found another view, expected Gaussian noise of sigma {sigma:g}, "
            "which `controls` gives that name"
        )
    views[name] = ViewBlock(type="noise", parameters={"sigma": sigma})
    return name


def _with_twins(config: Config) -> Config:
    """Every experiment that learns from ranked lists gets its twin; those with the same lists and budget share one."""
    trainings, experiments = dict(config.trainings), dict(config.experiments)
    known = {_budget(config, name): twin for name, twin in twins(config).items()}
    for name, experiment in config.experiments.items():
        training = _training(config, name)
        if load("method", training.method).groups != "lists" or _learns_best(config, name):
            continue
        twin = known.setdefault(_budget(config, name), _free_name(config, experiments, name))
        if twin not in experiments:
            trainings[twin] = training.model_copy(update=TWIN)
            experiments[twin] = experiment.model_copy(update={"training": twin})
        tested = {*experiments[twin].benchmarks, *experiment.benchmarks}
        asked = tuple(b for b in config.benchmarks if b in tested)
        experiments[twin] = experiments[twin].model_copy(update={"benchmarks": asked})
    return config.model_copy(update={"trainings": trainings, "experiments": experiments})


def _free_name(config: Config, experiments: dict[str, ExperimentBlock], experiment: str) -> str:
    """What a twin is made of; where that is taken, also whose it is first."""
    block = config.experiments[experiment]
    made = [getattr(block, key) for key in block.made_of if key != "reward"]
    short = "-".join(["sft-on-best", *made])
    taken = {*config.models, *config.trainings, *experiments}
    for name in (short, f"{short}-{experiment}"):
        if name not in taken:
            return name
    raise UserError(f"config\n  `{short}-{experiment}` is taken, expected another name: `controls` needs this one")


def _training(config: Config, experiment: str) -> TrainingBlock:
    return config.trainings[config.experiments[experiment].training]


def _learns_best(config: Config, experiment: str) -> bool:
    training = _training(config, experiment)
    return training.method == SFT.name and SFT.Parameters.model_validate(
        training.parameters
    ) == SFT.Parameters.model_validate(TWIN["parameters"])


def _budget(config: Config, experiment: str) -> str:
    """All that an experiment and its twin have in common: what it learns from, and how long and how fast."""
    block = config.experiments[experiment]
    made = {key: getattr(block, key) for key in ("model", "dataset", *block.made_of)}
    training = _training(config, experiment).model_dump(mode="json", exclude=UNTRACKED | TWIN.keys())
    return json.dumps([made, training], sort_keys=True)
