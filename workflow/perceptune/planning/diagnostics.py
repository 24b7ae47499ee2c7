"""The `diagnostics` section: the experiments whose gradients are measured."""

from __future__ import annotations

from collections.abc import Iterator

from perceptune.contracts.config import Config
from perceptune.contracts.plugins import load
from perceptune.core.diagnostics import compared


def diagnosed(config: Config) -> list[str]:
    """The experiments to measure, in config order; empty without the section."""
    if config.diagnostics is None:
        return []
    named = config.diagnostics.experiments
    return [name for name in config.experiments if (name in named if named else not why_not(config, name))]


def diagnostics_mistakes(config: Config) -> Iterator[str]:
    """A line per experiment that `diagnostics` names and that cannot be measured."""
    for name in config.diagnostics.experiments if config.diagnostics else ():
        if reason := why_not(config, name):
            yield f"key `diagnostics.experiments`: `{name}` has no pairs to measure: {reason}"


def why_not(config: Config, experiment: str) -> str:
    """The reason why an experiment's gradients cannot be measured by pair; empty if they can."""
    training = config.trainings[config.experiments[experiment].training]
    method = load("method", training.method)
    if method.groups == "rollouts":
        return f"method `{training.method}` learns in rounds"
    parameters = method.Parameters.model_validate(training.parameters)
    pairs = {"focus": (0, 1), "robust": (0, 1)} if method.groups == "pairs" else {}
    truth = method.wants_ground_truth(parameters)
    if truth or not compared(method.looks([1.0, 0.0], pairs, parameters, training.view), pairs, 2):
        return f"method `{training.method}` compares no two answers"
    return ""
