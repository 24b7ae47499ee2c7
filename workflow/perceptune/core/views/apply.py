"""Apply recipes of views to images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perceptune.contracts.plugins import load, place_in_plugin
from perceptune.core.views.view import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image


def shown(recipe: Recipe, images: Sequence[Image]) -> list[Image]:
    """The images after applying the recipe; none for an example without images.

    Raises `ValueError` if a view raises one or returns anything but RGB images, not as many as it
    declares, or other sizes although it declares to keep them.
    """
    view = load("view", recipe.op)
    if not images:
        return []
    parameters = view.Parameters.model_validate(recipe.parameters)
    try:
        returned = view.apply(images, parameters, recipe.seed, recipe.box)
    except ValueError as error:
        # callers report it as the reason why an image is left out, so it must name the plug-in's line
        if (place := place_in_plugin(error)) is None:
            raise
        raise ValueError(f"view `{recipe.op}`: {place}") from error
    pictures = _pictures(returned, recipe.op)
    if len(pictures) != (count := view.count(len(images))):
        raise ValueError(f"view `{recipe.op}` returns {len(pictures)} images, expected {count}")
    before, after = ([picture.size for picture in side] for side in (images, pictures))
    if view.keeps_size(parameters) and before != after:
        raise ValueError(f"view `{recipe.op}` changed sizes {before} to {after}, expected the same sizes")
    return pictures


def _pictures(returned: Any, view: str) -> list[Image]:
    """What a view returns. Raises `ValueError` if it is not a list of RGB images."""
    from PIL.Image import Image as Picture

    if not isinstance(returned, list):
        raise ValueError(f"view `{view}` returns a `{type(returned).__name__}`, expected a list of RGB images")
    for one in returned:
        found = one.mode if isinstance(one, Picture) else type(one).__name__
        if found != "RGB":
            raise ValueError(f"view `{view}` returns `{found}` in its list, expected RGB images")
    return returned


def strength(recipe: Recipe, images: Sequence[Image], pictures: Sequence[Image]) -> float:
    """The measured change from `images` to `pictures`, in the view's own unit."""
    return load("view", recipe.op).strength(images, pictures, recipe.box) if images else 0.0


def pictures_shown(recipe: Recipe, images: int) -> int:
    """The number of images after applying the recipe to `images` images."""
    return load("view", recipe.op).count(images) if images else 0
