"""Pictures of random pixels, and recipes of views."""

import numpy as np
from perceptune.core.views.view import Recipe
from PIL import Image

from tests.plugins import VIEWS

BOX = (4.0, 2.0, 12.0, 10.0)


def picture(width: int = 20, height: int = 14) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def recipe(op: str, pictures: int = 1, **parameters: object) -> Recipe:
    salient: dict[str, object] = {"grid": [2, 3], "cells": [[0, 4, 5]] * pictures} if VIEWS[op].needs_saliency else {}
    return Recipe(op, {**salient, **parameters}, 7, BOX if VIEWS[op].needs_box else None)
