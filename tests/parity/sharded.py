"""Trains two steps of every family, in this process or, run as a script, in several that share the weights."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.core.views.view import Recipe
from perceptune.engines.training import image_features, shared_prefix, trainer
from perceptune.engines.training.groups import Encoder, RankedList, Shown
from perceptune.engines.training.image_features import feature_cache, finish
from perceptune.engines.training.sharding import whole_adapter
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.feeds import fed
from tests.parity.adapters import TRAINED
from tests.plugins import METHODS
from tests.tiny_models import BUILDERS

TIED = "qwen2_5_vl-tied"
"""A model whose head is its embedding, as in the small models of the family."""
NAMES = (*sorted(BUILDERS), TIED)
LANGUAGE_ONLY = ("llava", "qwen3_vl")
"""Models that are also trained with a cache of image features."""
CACHED = {"lora": LoraBlock(r=4, alpha=8)}
"""The settings of these trainings."""


def build(folder: Path) -> None:
    """Writes all models and images."""
    for name in NAMES:
        BUILDERS[name.removesuffix("-tied")](folder / name, 0)
    config = json.loads((folder / TIED / "config.json").read_text())
    for part in (config, config["text_config"]):
        part["tie_word_embeddings"] = True
    (folder / TIED / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / TIED / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if k != "lm_head.weight"},
        folder / TIED / "model.safetensors",
        {"format": "pt"},
    )
    pixels = np.random.default_rng(0).integers(0, 255, (3, 96, 112, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")


def trained(
    name: str, folder: Path, checkpoints: Path, features: Path | None = None, **changes: Any
) -> dict[str, torch.Tensor] | None:
    """The adapter after two steps of two lists; one of the four has no image. For the first process only.

    `features`: the folder of a cache of image features.
    """
    family = name.removesuffix("-tied")
    model = ModelBlock(path=str(folder / name), family=family, dtype="float32", feature_cache=features is not None)
    settings: dict[str, Any] = {"method": "perpo", "learning_rate": 1e-4, "batch_size": 2, "scheduler": "constant"}
    block = TrainingBlock(**{**settings, "lora": TRAINED[family], **changes})
    method, base = METHODS["perpo"], load_model(model)
    adapted = trainer.with_adapter(base, block, family_of(model), model.path)
    encoder = Encoder(
        family_of(model), load_processor(model), base, lambda one: method.looks(one.rewards, one.pairs, None, "original")
    )  # fmt: skip
    cache = feature_cache(features or folder, model, name, adapted, "float32")
    trainer.train(
        adapted, fed(encoder, lists(folder)), method=method, parameters=method.Parameters(), block=block, dtype="float32",
        checkpoints=checkpoints, fingerprint="", features=cache,
    )  # fmt: skip
    finish(cache)
    whole = whole_adapter(adapted)
    return {n: p.detach() for n, p in adapted.named_parameters() if p.requires_grad} if whole is None else whole


def lists(folder: Path) -> list[RankedList]:
    random, made = np.random.default_rng(1), []
    for number in range(4):
        images = [{"bytes": None, "path": str(folder / f"{number}.png")}] if number < 3 else []
        content = [*({"type": "image", "text": None} for _ in images), {"type": "text", "text": "read."}]
        views = {"original": Shown(Recipe("original"), [{"role": "user", "content": content}])}
        responses = [random.integers(20, 250, length).tolist() for length in (3 + number, 1, 5)]
        made.append(
            RankedList(str(number), images, views, responses, [0.9, 0.5, 0.0], {"original": [-9.0, -5.0, -20.0]})
        )
    return made


def main(folder: Path) -> None:
    shared_prefix.LOGITS_AT_ONCE = 1  # a block per token, so that the processes have different numbers of blocks
    image_features.RESERVE = 0
    works = [(name, name, {}) for name in NAMES] + [(name, f"{name}-cached", CACHED) for name in LANGUAGE_ONLY]
    for name, result, changes in works:
        given = {**changes, "features": folder / "features"} if changes else {}
        found = trained(
            name,
            folder,
            folder / f"{result}-checkpoints",
            sharding="fsdp",
            devices=2,
            gradient_checkpointing=True,
            **given,
        )
        if os.environ["RANK"] == "0":
            assert found is not None
            save_file(found, folder / f"{result}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
