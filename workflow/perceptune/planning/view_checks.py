"""Checks of views: whether the blocks that use them provide the crop or saliency map they need."""

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
    """The views that a training's method uses."""
    method = load("method", training.method)
    return method.views(method.Parameters.model_validate(training.parameters), training.view)


GROUPS = {"lists": "ranked lists", "pairs": "pairs", "rollouts": "rounds"}
"""Names in messages of the groups that a method learns from."""


def incompatible_views(
    name: str, training: TrainingBlock, config: Config, boxed: set[str], salient: set[str]
) -> Iterator[str]:
    """Views that the method uses but its groups cannot provide."""
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
            yield f"key `{key}.parameters.{parameter}`: `{view}` is the training view, expected a different view"
    for view in seen:
        where = f"key `{key}.view`: `{view}`" if view == training.view else f"key `{key}`: view `{view}`"
        if view not in known and named.get(view) not in training.parameters:
            yield f"key `{key}`: method `{training.method}` uses view `{view}`, which is not defined{_near(view, known)}"
        elif view in PAIR_VIEWS and method.groups == "pairs":
            continue  # part of the pairs
        elif view in boxed:
            yield f"{where} needs a crop; {groups} have none, crops are available only for pairs"
        elif view in salient and method.groups != "lists" and (view == training.view or method.groups == "pairs"):
            place = "pairs" if method.groups == "pairs" else "training views of rounds"
            yield f"{where} needs a saliency map; {place} do not support these"
    if undeclared := [stored.view for stored in method.stored(parameters, training.view) if stored.view not in seen]:
        yield f"key `{key}`: method `{training.method}` stores view `{undeclared[0]}`, missing from its `views`"


def changing_size(view: ViewBlock, config: Config) -> list[str]:
    """The types of a view that may change the image size."""
    blocks_of = [view, *(config.views[name] for name in view.choice)]
    kinds = [(load("view", block.type), block.parameters) for block in blocks_of if block.type]
    return [kind.name for kind, values in kinds if not kind.keeps_size(kind.Parameters.model_validate(values))]


def uncovered(config: Config) -> Iterator[str]:
    """Saliency maps that may be missing for questions whose view needs them.

    Reported at the start, because a job would find out only after sampling.
    """
    uses: list[tuple[str, SamplingBlock | BenchmarkBlock | RolloutBlock | GivenBlock, Sequence[str]]] = []
    uses += [(f"samplings.{name}", sampling, [sampling.view]) for name, sampling in config.samplings.items()]
    uses += [(f"benchmarks.{name}", benchmark, _shown(benchmark)) for name, benchmark in config.benchmarks.items()]
    for experiment in config.experiments.values():
        if experiment.pair_generation is None:
            uses.append((*_questions(experiment, config), views_seen(config.trainings[experiment.training])))
    mistakes: dict[str, None] = {}
    for user, block, views in uses:
        blocks_of = [config.views[view] for view in views if view in config.views]
        used = {one.saliency_map for view in blocks_of for one in (view, *(config.views[name] for name in view.choice))}
        for name in sorted(saliency for saliency in used if saliency):
            left_out = _left_out(config.saliency_maps[name], block)
            mistakes |= dict.fromkeys(
                f"key `saliency_maps.{name}.{key}`: may leave out questions of `{user}`" for key in left_out
            )
    yield from mistakes


def _shown(benchmark: BenchmarkBlock) -> list[str]:
    """The views of a benchmark, and that of its amateur."""
    return [*benchmark.views, *([benchmark.contrast.view] if benchmark.contrast else [])]


def _questions(experiment: ExperimentBlock, config: Config) -> tuple[str, SamplingBlock | RolloutBlock | GivenBlock]:
    """Key and block of the questions that an experiment without pairs learns from."""
    for section, name in (("rollouts", experiment.rollout), ("dataset_preferences", experiment.dataset_preference)):
        if name is not None:
            return f"{section}.{name}", getattr(config, section)[name]
    return f"samplings.{experiment.sampling}", config.samplings[str(experiment.sampling)]


def _left_out(
    saliency: SaliencyBlock, questions: SamplingBlock | BenchmarkBlock | RolloutBlock | GivenBlock
) -> Iterator[str]:
    """The keys of a saliency block that may exclude some of the questions."""
    if saliency.split != questions.split:
        yield "split"
    if saliency.tasks and not (questions.tasks and set(questions.tasks) <= set(saliency.tasks)):
        yield "tasks"
    limit = None if isinstance(questions, RolloutBlock) else questions.limit
    if saliency.limit is not None and (limit is None or limit > saliency.limit):
        yield "limit"


def kinds_of(view: ViewBlock, config: Config) -> list[View]:
    """The plug-ins behind a view: one, or those of its choices."""
    blocks_of = (view, *(config.views[name] for name in view.choice))
    return [load("view", block.type) for block in blocks_of if block.type]


def _near(name: str, allowed: set[str]) -> str:
    return f"; {hint}" if (hint := near(name, sorted(allowed))) else ""
