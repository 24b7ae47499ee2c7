"""Checks of what a model's family lacks: coordinates of boxes, and places of image tokens."""

from __future__ import annotations

from collections.abc import Iterator

from perceptune.contracts.config import Config, ExperimentBlock
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
    """Rewards that read boxes, for a model whose coordinate format nobody names."""
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


def _without_places(experiment: ExperimentBlock, family: Family, config: Config) -> Iterator[str]:
    """Views that need an attention map of a model whose image tokens have no known places."""
    if family.places_tokens or experiment.pair_generation is None:
        return
    boxed = {name for name, view in config.views.items() if any(kind.needs_box for kind in kinds_of(view, config))}
    pairing = config.pair_generations[experiment.pair_generation]
    for kind in ("focus", "robust"):
        if (pair := getattr(pairing, kind)) and {pair.chosen.view, pair.rejected.view} & boxed:
            yield (
                f"key `models.{experiment.model}.family`: `{family.name}` has no attention maps, which "
                f"`pair_generations.{experiment.pair_generation}.{kind}` needs for its crops"
            )
