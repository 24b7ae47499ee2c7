"""A tiny model, and ranked lists of answers with log-probs of the reference."""

from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import ModelBlock
from perceptune.core.views.view import Recipe
from perceptune.engines.training.groups import RankedList, Shown
from PIL import Image

from tests import tiny_models as tiny

from .trainings import with_reference


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelBlock:
    folder = tiny.build_tiny_llava(tmp_path_factory.mktemp("model"), 0)
    return ModelBlock(path=str(folder), family="llava", dtype="float32")


@pytest.fixture(scope="package")
def lists(model: ModelBlock, tmp_path_factory: pytest.TempPathFactory) -> list[RankedList]:
    """Ten lists of four answers with reference log-probs; the last optimiser step of an epoch is
    smaller than the others.
    """
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    made = []
    for number in range(10):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        content: list[dict[str, Any]] = [{"type": "image", "text": None}, {"type": "text", "text": "read the text."}]
        responses = [random.integers(270, 380, length).tolist() for length in (5, 1, 3, 7)]
        images = [{"bytes": None, "path": str(path)}]
        recipes = {"original": Recipe("original"), "corrupted": Recipe("random_crop", {}, number)}
        views = {name: Shown(recipe, [{"role": "user", "content": content}]) for name, recipe in recipes.items()}
        made.append(RankedList(str(number), images, views, responses, [0.9, 0.6, 0.3, 0.0]))
    return with_reference(model, made)
