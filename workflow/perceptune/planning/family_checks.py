"""Checks of what a model's family lacks: coordinates of boxes, and places of image tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perceptune.contracts.config import Config, ExperimentBlock, ShapesDataset
from perceptune.contracts.plugins import load
from perceptune.models.families.family import Family
from perceptune.planning.view_checks import kinds_of


def family_mistakes(config: Config) -> list[str]:
    """A line per use of a model that its family does not support, without duplicates."""
    found: dict[str, None] = {}
    for experiment in config.experiments.values():
        family: Family = load("family", config.models[experiment.model].family)
        found |= dict.fromkeys(_without_frame(experiment, family, config))
        found |= dict.fromkeys(_without_places(experiment, family, config))
    return list(found)


def _without_frame(experiment: ExperimentBlock, family: Family, config: Config) -> Iterator[str]:
    """Rewards that read boxes, and training on boxes, for a model whose coordinate format nobody
    names."""
    key, block = f"models.{experiment.model}.coordinates", config.models[experiment.model]
    if block.coordinates == "resized_pixels" and not family.resizes_by_pixels:
        yield f"key `{key}`: `resized_pixels` is for Qwen-VL families only, got `family: {family.name}`"
    if family.frame or block.coordinates:
        return
    named = dict.fromkeys([experiment.reward, *(config.benchmarks[b].reward for b in experiment.benchmarks)])
    for reward in (name for name in named if name is not None):
        for task, kind in config.rewards[reward].tasks.items():
            if load("reward", kind).needs == "box":
                yield (
                    f"key `{key}`: missing, `family: {family.name}` does not know how the model writes boxes, "
                    f"which `rewards.{reward}.tasks.{task}` reads"
                )
    training = config.trainings[experiment.training]
    method = load("method", training.method)
    if method.wants_ground_truth(method.Parameters.model_validate(training.parameters)):
        source, tasks = _learnt(experiment, config)
        if "grounding" in tasks:
            yield (
                f"key `{key}`: missing, `family: {family.name}` does not know how the model writes boxes, "
                f"which `trainings.{experiment.training}` learns from the ground truths of `{source}`"
            )


def _learnt(experiment: ExperimentBlock, config: Config) -> tuple[str, set[str]]:
    """The block whose questions an experiment learns from, and their tasks as far as the config knows
    them."""
    section = experiment.made_of[0]
    name = getattr(experiment, section)
    block, dataset = getattr(config, f"{section}s")[name], config.datasets[experiment.dataset]
    tasks: set[str] = set(getattr(block, "tasks", ()))
    if isinstance(dataset, ShapesDataset):
        made = set(getattr(dataset, block.split, {}))
        tasks = made & tasks if tasks else made
    elif not tasks and (task := dataset.task or load("importer", dataset.kind).task):
        tasks = {task}
    return f"{section}s.{name}", tasks


def _without_places(experiment: ExperimentBlock, family: Family, config: Config) -> Iterator[str]:
    """Attention maps, and views that need one, of a model whose image tokens have no known places."""
    if family.places_tokens:
        return
    about = f"key `models.{experiment.model}.family`: `{family.name}` has no attention maps, which"
    boxed = {name for name, view in config.views.items() if any(kind.needs_box for kind in kinds_of(view, config))}
    asking: list[tuple[str, Sequence[str]]] = []
    for name in experiment.benchmarks:
        benchmark = config.benchmarks[name]
        asking.append((f"benchmarks.{name}.views", benchmark.views))
        if benchmark.attention_map:
            yield f"{about} `benchmarks.{name}.attention_map` measures"
    if experiment.sampling:
        asking.append((f"samplings.{experiment.sampling}.view", [config.samplings[experiment.sampling].view]))
    if experiment.rollout:
        asking.append((f"rollouts.{experiment.rollout}.view", [config.rollouts[experiment.rollout].view]))
    for key, views in asking:
        if cropped := sorted(boxed.intersection(views)):
            yield f"{about} `{key}` needs for the crops of view `{cropped[0]}`"
    if experiment.pair_generation is None:
        return
    pairing = config.pair_generations[experiment.pair_generation]
    for kind in ("focus", "robust"):
        if (pair := getattr(pairing, kind)) and {pair.chosen.view, pair.rejected.view} & boxed:
            yield f"{about} `pair_generations.{experiment.pair_generation}.{kind}` needs for its crops"
