"""The interface of views: named, seeded transforms of images.

A recipe is a view of one example with all random choices fixed.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from perceptune.core.views.patch_saliency import Saliency

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[float, float, float, float]


class ViewParameters(BaseModel):
    """Base of a view's parameters: frozen; extra keys, infinite numbers and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def check_range(parameters: ViewParameters, smallest: str, largest: str) -> None:
    """Raises `ValueError` if the first of these two parameters exceeds the second."""
    low, high = getattr(parameters, smallest), getattr(parameters, largest)
    if low > high:
        raise ValueError(f"`{smallest}` {low:g} exceeds `{largest}` {high:g}")


@dataclass(frozen=True)
class Recipe:
    """How one example's images are transformed: always to the same pixels."""

    op: str
    """Name of the view."""
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    """Seed of all random choices."""
    box: Box | None = None
    """The crop: x1, y1, x2, y2 in pixels of the first image; None for views without a crop."""

    def text(self) -> str:
        """JSON with sorted keys, as stored in tables."""
        return json.dumps({k: v for k, v in asdict(self).items() if v not in (None, {})}, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Recipe:
        """The inverse of `text`."""
        found = json.loads(text)
        box = found.get("box")
        return cls(found["op"], found.get("parameters", {}), found.get("seed", 0), tuple(box) if box else None)


class View(ABC):
    """A view. Its declaration can be read without Pillow and numpy, which only `apply` imports."""

    name: ClassVar[str]
    Parameters: ClassVar[type[ViewParameters]] = ViewParameters
    needs_box: ClassVar[bool] = False
    """Whether the view needs a crop."""
    needs_saliency: ClassVar[bool] = False
    """Whether the view needs a saliency map."""
    seeded: ClassVar[bool] = False
    """Whether the view makes random choices."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Raises `TypeError` for an incomplete declaration."""
        super().__init_subclass__(**keywords)
        if cls.needs_saliency and cls.settled is View.settled:
            raise TypeError(f"`{cls.__name__}` has `needs_saliency = True` and must define `settled`")

    def count(self, images: int) -> int:
        """The number of images after applying the view to `images` images."""
        return images

    def keeps_size(self, parameters: Any) -> bool:
        """Whether number and sizes of images stay the same, and so the number of image tokens."""
        return True

    def settled(self, parameters: Any, saliency: Saliency) -> dict[str, Any]:
        """The complete parameters of a recipe. Views that need a saliency map must define it."""
        raise TypeError(f"view `{self.name}` needs no saliency map")

    @abstractmethod
    def apply(self, images: Sequence[Image], parameters: Any, seed: int, box: Box | None) -> list[Image]:
        """The transformed RGB images; the input images are not modified."""

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """The measured change of the first image; by default the RMS pixel change, in [0, 1]."""
        import numpy as np

        before, after = (np.asarray(picture, dtype=float) / 255 for picture in (images[0], shown[0]))
        return float(np.sqrt(np.mean((after - before) ** 2)))


def pixel_digest(images: Sequence[Image]) -> str:
    """SHA-256 of the sizes and RGB pixels of the images, hexadecimal."""
    digest = hashlib.sha256()
    for picture in images:
        digest.update(f"{picture.width}x{picture.height};".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()


def clipped(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in whole pixels inside the image, at least 1 x 1; x2 and y2 are exclusive."""
    x1, y1 = (min(max(0, int(v)), side - 1) for v, side in zip(box[:2], size, strict=True))
    x2, y2 = (min(max(first + 1, int(v)), side) for v, first, side in zip(box[2:], (x1, y1), size, strict=True))
    return x1, y1, x2, y2
