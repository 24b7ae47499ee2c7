"""Checks of views: whether the blocks that show them have the crop or the saliency they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perceptune.contracts.config import (
    PLAIN_VIEWS,
    BenchmarkBlock,
    Config,
    ExperimentBlock,
    GivenBlock,
    RolloutBlock,
    SaliencyBlock,
    SamplingBlock,
    TrainingBlock,
    ViewBlock,
)
from perceptune.contracts.errors import near
from perceptune.contracts.plugins import load
from perceptune.core.methods.logprob_queries import PAIR_VIEWS
from perceptune.core.methods.method import Method, naming_views
from perceptune.core.views.view import View


def views_seen(training: TrainingBlock) -> tuple[str, ...]:
    """The views that a training's method sees."""
    method = load("method", training.method)
    return method.views(method.Parameters.model_validate(training.parameters), training.view)


GROUPS = {"lists": "ranked lists", "pairs": "pairs", "rollouts": "rounds"}
"""What messages call the groups that a method learns from."""


def misfit_views(
    name: str, training: TrainingBlock, config: Config, boxed: set[str], salient: set[str]
) -> Iterator[str]:
    """Views that the method sees and its groups cannot be shown under."""
    method: Method = load("method", training.method)
    parameters = method.Parameters.model_validate(training.parameters)
    known = {*PLAIN_VIEWS, *config.views, *(PAIR_VIEWS if method.groups == "pairs" else ())}
    key, seen, groups = f"trainings.{name}", method.views(parameters, training.view), GROUPS[method.groups]
    named = {getattr(parameters, parameter): parameter for parameter in naming_views(method.Parameters)}
    for view, parameter in named.items():
        if parameter not in training.parameters:
            continue
        if view not in known:
            yield f"key `{key}.parameters.{parameter}`: view `{view}` is not defined{_near(view, known)}"
        elif view == training.view:
            yield f"key `{key}.parameters.{parameter}`: `{view}` is the training view, expected another one"
    for view in seen:
        where = f"key `{key}.view`: `{view}`" if view == training.view else f"key `{key}`: view `{view}`"
        if view not in known and named.get(view) not in training.parameters:
            yield f"key `{key}`: method `{training.method}` looks at view `{view}`, which is not defined{_near(view, known)}"
        elif view in PAIR_VIEWS and method.groups == "pairs":
            continue  # the pairs bring it themselves
        elif view in boxed:
            yield f"{where} needs a crop, which {groups} do not have"
        elif view in salient and method.groups != "lists" and (view == training.view or method.groups == "pairs"):
            yield f"{where} needs a saliency, which {'pairs' if method.groups == 'pairs' else 'training views'} do not have"
    if unseen := [stored.view for stored in method.stored(parameters, training.view) if stored.view not in seen]:
        yield f"key `{key}`: method `{training.method}` stores view `{unseen[0]}`, which its `views` does not name"


def changing_size(view: ViewBlock, config: Config) -> list[str]:
    """The modules of a view that may change the size of images."""
    blocks_of = [view, *(config.views[name] for name in view.choice)]
    kinds = [(load("view", block.type), block.parameters) for block in blocks_of if block.type]
    return [kind.name for kind, given in kinds if not kind.keeps_size(kind.Parameters.model_validate(given))]


def uncovered(config: Config) -> Iterator[str]:
    """Saliencies that leave out questions which are shown under a view that needs them; better said now than after a round."""
    asked: list[tuple[str, SamplingBlock | BenchmarkBlock | RolloutBlock | GivenBlock, Sequence[str]]] = []
    asked += [(f"samplings.{name}", sampling, [sampling.view]) for name, sampling in config.samplings.items()]
    asked += [(f"benchmarks.{name}", benchmark, benchmark.views) for name, benchmark in config.benchmarks.items()]
    for experiment in config.experiments.values():
        if experiment.pair_generation is None:
            asked.append((*_asking(experiment, config), views_seen(config.trainings[experiment.training])))
    said: dict[str, None] = {}
    for asker, block, views in asked:
        shown = [config.views[view] for view in views if view in config.views]
        used = {one.saliency_map for view in shown for one in (view, *(config.views[name] for name in view.choice))}
        for name in sorted(saliency for saliency in used if saliency):
            left_out = _left_out(config.saliency_maps[name], block)
            said |= dict.fromkeys(
                f"key `saliency_maps.{name}.{key}`: may leave out questions of `{asker}`" for key in left_out
            )
    yield from said


def _asking(experiment: ExperimentBlock, config: Config) -> tuple[str, SamplingBlock | RolloutBlock | GivenBlock]:
    """Key and block of the questions that an experiment without pairs learns from."""
    for section, name in (("rollouts", experiment.rollout), ("dataset_preferences", experiment.dataset_preference)):
        if name is not None:
            return f"{section}.{name}", getattr(config, section)[name]
    return f"samplings.{experiment.sampling}", config.samplings[str(experiment.sampling)]


def _left_out(
    saliency: SaliencyBlock, asked: SamplingBlock | BenchmarkBlock | RolloutBlock | GivenBlock
) -> Iterator[str]:
    """The keys of a saliency because of which it does not cover what is asked."""
    if saliency.split != asked.split:
        yield "split"
    if saliency.tasks and not (asked.tasks and set(asked.tasks) <= set(saliency.tasks)):
        yield "tasks"
    limit = None if isinstance(asked, RolloutBlock) else asked.limit
    if saliency.limit is not None and (limit is None or limit > saliency.limit):
        yield "limit"


def kinds_of(view: ViewBlock, config: Config) -> list[View]:
    """What makes a view: one module, or those of the views that it is one of."""
    return [load("view", op) for one in (view, *(config.views[name] for name in view.choice)) if (op := one.type)]


def _near(name: str, allowed: set[str]) -> str:
    return f"; {hint}" if (hint := near(name, sorted(allowed))) else ""
