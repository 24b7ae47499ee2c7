"""The `controls` section: prompts, views and experiments that test explanations of a gain."""

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

COUNTERPART: dict[str, Any] = {"method": SFT.name, "parameters": {"source": "best_of_n"}, "keep_epochs": False}
"""What an SFT counterpart changes in a training block. Everything else is the budget, which it
keeps."""
NO_COUNTERPART = {
    "pairs": "it learns from pairs, which do not rank several responses",
    "rollouts": "it learns in rounds from its own responses, not from lists of the base model",
}
"""What a method learns from, to the reason why its experiments have no SFT counterpart."""


def with_controls(config: Config) -> Config:
    """Adds what `controls` calls for to a valid config: views, prompts, samples and experiments.

    Raises `UserError` if a name it needs is already used for something else.
    """
    if config.controls is None:
        return config
    extended = _with_questions(config, config.controls)
    return _with_counterparts(extended) if config.controls.sft_on_best else extended


def counterparts(config: Config) -> dict[str, str]:
    """Experiment to its SFT counterpart, for the experiments that have one.

    The counterpart is trained on the best response of each of the same lists with the same budget.
    """
    learners: dict[str, str] = {}
    for name in config.experiments:
        if _learns_best(config, name):
            learners.setdefault(_budget(config, name), name)
    others = [name for name in config.experiments if not _learns_best(config, name)]
    return {name: learners[budget] for name in others if (budget := _budget(config, name)) in learners}


def why_no_counterpart(config: Config, experiment: str) -> str:
    """The reason why an experiment has no SFT counterpart; empty if it can have one or is one."""
    return NO_COUNTERPART.get(load("method", _training(config, experiment).method).groups, "")


def gaussian_sigma(view: ViewBlock) -> float | None:
    """The sigma of a view with Gaussian pixel noise; None for other views."""
    if view.type != "noise" or view.parameters.get("kind", "gaussian") != "gaussian":
        return None
    return float(view.parameters.get("sigma", 0.1) or 0.0)


def _with_questions(config: Config, controls: ControlsBlock) -> Config:
    """Adds views, prompts and samples to the benchmarks in use, and defines the new views."""
    used = {b for experiment in config.experiments.values() for b in experiment.benchmarks}
    views, benchmarks = dict(config.views), dict(config.benchmarks)
    for name in (b for b in config.benchmarks if b in used):
        block = benchmarks[name]
        views_of = [*block.views, *(["blank"] if controls.blank else [])]
        present = {gaussian_sigma(views[view]) for view in block.views if view in views}
        views_of += [_noisy(sigma, views) for sigma in controls.sigmas if sigma not in present]
        prompts = block.prompts or _other_prompts(block, controls)
        update = {"views": tuple(dict.fromkeys(views_of)), "n": max(block.n, controls.n), "prompts": prompts}
        benchmarks[name] = block.model_copy(update=update)
    return config.model_copy(update={"views": views, "benchmarks": benchmarks})


def _other_prompts(block: BenchmarkBlock, controls: ControlsBlock) -> tuple[str, ...]:
    """The control prompts, without the benchmark's own."""
    return tuple(prompt for prompt in dict.fromkeys(controls.prompts) if prompt != block.prompt)


def _noisy(sigma: float, views: dict[str, ViewBlock]) -> str:
    """The name of a view with noise of this sigma at the image's own size, defined if needed."""
    for name, view in views.items():
        if gaussian_sigma(view) == sigma and view.parameters.get("side") is None:
            return name
    name = f"noise-{sigma:g}"
    if name in views:
        raise UserError(
            f"config\n  key `views.{name}`: found another view, expected Gaussian noise of sigma {sigma:g}: "
            "`controls` uses this name"
        )
    views[name] = ViewBlock(type="noise", parameters={"sigma": sigma})
    return name


def _with_counterparts(config: Config) -> Config:
    """Adds an SFT counterpart to every experiment with ranked lists.

    Experiments with the same lists and budget share one.
    """
    trainings, experiments = dict(config.trainings), dict(config.experiments)
    known = {_budget(config, name): counterpart for name, counterpart in counterparts(config).items()}
    for name, experiment in config.experiments.items():
        training = _training(config, name)
        if load("method", training.method).groups != "lists" or _learns_best(config, name):
            continue
        counterpart = known.setdefault(_budget(config, name), _free_name(config, experiments, name))
        if counterpart not in experiments:
            trainings[counterpart] = training.model_copy(update=COUNTERPART)
            experiments[counterpart] = experiment.model_copy(update={"training": counterpart})
        tested = {*experiments[counterpart].benchmarks, *experiment.benchmarks}
        benchmarks = tuple(b for b in config.benchmarks if b in tested)
        experiments[counterpart] = experiments[counterpart].model_copy(update={"benchmarks": benchmarks})
    return config.model_copy(update={"trainings": trainings, "experiments": experiments})


def _free_name(config: Config, experiments: dict[str, ExperimentBlock], experiment: str) -> str:
    """A name for an SFT counterpart: its sources, plus the experiment's name if that is taken."""
    block = config.experiments[experiment]
    made = [getattr(block, key) for key in block.made_of if key != "reward"]
    short = "-".join(["sft-on-best", *made])
    taken = {*config.models, *config.trainings, *experiments}
    for name in (short, f"{short}-{experiment}"):
        if name not in taken:
            return name
    raise UserError(f"config\n  `{short}-{experiment}` is taken, expected another name: `controls` uses this name")


def _training(config: Config, experiment: str) -> TrainingBlock:
    return config.trainings[config.experiments[experiment].training]


def _learns_best(config: Config, experiment: str) -> bool:
    training = _training(config, experiment)
    return training.method == SFT.name and SFT.Parameters.model_validate(
        training.parameters
    ) == SFT.Parameters.model_validate(COUNTERPART["parameters"])


def _budget(config: Config, experiment: str) -> str:
    """What an experiment and its SFT counterpart share: preferences and training budget."""
    block = config.experiments[experiment]
    made = {key: getattr(block, key) for key in ("model", "dataset", *block.made_of)}
    training = _training(config, experiment).model_dump(mode="json", exclude=UNTRACKED | COUNTERPART.keys())
    return json.dumps([made, training], sort_keys=True)
