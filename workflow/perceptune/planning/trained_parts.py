"""Whether what a training block trains exists, can be trained and served, and leaves images as they are."""

from __future__ import annotations

from collections.abc import Iterator

from perceptune.contracts.config import Config, TrainingBlock
from perceptune.contracts.plugins import load


def incompatible_parts(name: str, training: TrainingBlock, config: Config) -> Iterator[str]:
    """Parts that a training block contradicts itself about, or that a family does not declare."""
    lora, key = training.lora, f"trainings.{name}.lora"
    for whole in lora.full:
        if whole not in lora.parts:
            yield f"key `{key}.full`: `{whole}` is not in `parts`"
    if set(lora.full) >= set(lora.parts):
        yield f"key `{key}.parts`: all are in `full`, expected another one for the LoRA adapter"
    if lora.use_dora and training.quantisation != "none":
        yield (
            f"key `{key}.use_dora`: the norms of `{training.quantisation}` weights are not those of the weights that are"
            " served; remove this key or `quantisation`"
        )
    families = {config.models[e.model].family: e.model for e in config.experiments.values() if e.training == name}
    for family, model in families.items():
        known = load("family", family).lora_targets
        for part in lora.parts:
            if part not in known:
                allowed = ", ".join(f"`{one}`" for one in known)
                yield f"key `{key}.parts`: `{part}`, but family `{family}` of model `{model}` declares only {allowed}"


def trained_images(config: Config) -> Iterator[str]:
    """A line per training and model with a cache of image features, which training makes useless."""
    used = dict.fromkeys((e.training, e.model) for e in config.experiments.values())
    for training, model in used:
        trained = [part for part in config.trainings[training].lora.parts if part != "language"]
        if config.models[model].feature_cache and trained:
            parts = " and ".join(f"`{part}`" for part in trained)
            yield (
                f"key `models.{model}.feature_cache`: training `{training}` does not use it, because {parts} in "
                f"`lora.parts` changes the features of images"
            )
