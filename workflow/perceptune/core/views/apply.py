"""Apply recipes of views to images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perceptune.contracts.plugins import load
from perceptune.core.views.view import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image


def shown(recipe: Recipe, images: Sequence[Image]) -> list[Image]:
    """The images after applying the recipe; none for an example without images.

    Raises `ValueError` if a view that declares to keep sizes changes them.
    """
    view = load("view", recipe.op)
    if not images:
        return []
    parameters = view.Parameters.model_validate(recipe.parameters)
    pictures = view.apply(images, parameters, recipe.seed, recipe.box)
    before, after = ([picture.size for picture in side] for side in (images, pictures))
    if view.keeps_size(parameters) and before != after:
        raise ValueError(f"view `{recipe.op}` changed sizes {before} to {after}, expected the same sizes")
    return pictures


def strength(recipe: Recipe, images: Sequence[Image], pictures: Sequence[Image]) -> float:
    """The measured change from `images` to `pictures`, in the view's own unit."""
    return load("view", recipe.op).strength(images, pictures, recipe.box) if images else 0.0


def pictures_shown(recipe: Recipe, images: int) -> int:
    """The number of images after applying the recipe to `images` images."""
    return load("view", recipe.op).count(images) if images else 0
