"""Applying the recipes of views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perceptune.contracts.plugins import load
from perceptune.core.views.view import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image


def shown(recipe: Recipe, images: Sequence[Image]) -> list[Image]:
    """The pictures as the recipe shows them. `ValueError` for an example without a picture that the view needs, and for
    pictures of other sizes from a view that says that it keeps them.
    """
    view = load("view", recipe.op)
    if not images:
        return []
    parameters = view.Parameters.model_validate(recipe.parameters)
    pictures = view.apply(images, parameters, recipe.seed, recipe.box)
    before, after = ([picture.size for picture in side] for side in (images, pictures))
    if view.keeps_size(parameters) and before != after:
        raise ValueError(f"view `{recipe.op}` made sizes {after} of {before}, expected the same")
    return pictures


def strength(recipe: Recipe, images: Sequence[Image], pictures: Sequence[Image]) -> float:
    """How much the recipe really changed `images` into `pictures`, in the view's own unit."""
    return load("view", recipe.op).strength(images, pictures, recipe.box) if images else 0.0


def pictures_shown(recipe: Recipe, images: int) -> int:
    """How many pictures the recipe makes of so many."""
    return load("view", recipe.op).count(images) if images else 0
