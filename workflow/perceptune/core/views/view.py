"""A view: a named, seeded way of showing pictures. A recipe is a view for one example, with nothing left to chance."""

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
    """A view's own settings: closed, frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Recipe:
    """How one example's pictures are shown: the same pixels wherever and whenever it is applied."""

    op: str
    """A module of `perceptune.core.views`."""
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    """Of everything drawn."""
    box: Box | None = None
    """The crop, x1, y1, x2, y2 in pixels of the first picture; None for views that need none."""

    def text(self) -> str:
        """As JSON in fixed order, as tables hold it."""
        return json.dumps({k: v for k, v in asdict(self).items() if v not in (None, {})}, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Recipe:
        """The inverse of `text`."""
        found = json.loads(text)
        box = found.get("box")
        return cls(found["op"], found.get("parameters", {}), found.get("seed", 0), tuple(box) if box else None)


class View(ABC):
    """One way of showing pictures. Declarations are read without Pillow and numpy; `apply` imports them."""

    name: ClassVar[str]
    Parameters: ClassVar[type[ViewParameters]] = ViewParameters
    needs_box: ClassVar[bool] = False
    """Whether a crop must be known."""
    needs_saliency: ClassVar[bool] = False
    """Whether it must be known what stands out."""
    seeded: ClassVar[bool] = False
    """Whether anything is drawn."""

    def count(self, images: int) -> int:
        """Pictures shown in place of so many."""
        return images

    def keeps_size(self, parameters: Any) -> bool:
        """Whether there are as many pictures of the same sizes afterwards, so that answers stand after as many image tokens."""
        return True

    def settled(self, parameters: Any, saliency: Saliency) -> dict[str, Any]:
        """The parameters of a recipe that says by itself what to do; of views that need a saliency."""
        raise NotImplementedError

    @abstractmethod
    def apply(self, images: Sequence[Image], parameters: Any, seed: int, box: Box | None) -> list[Image]:
        """Takes and gives RGB pictures; the given ones are left as they are."""

    def strength(self, images: Sequence[Image], shown: Sequence[Image], box: Box | None) -> float:
        """How much it really did: by default the root mean square change of a pixel of the first picture, of 1."""
        import numpy as np

        before, after = (np.asarray(picture, dtype=float) / 255 for picture in (images[0], shown[0]))
        return float(np.sqrt(np.mean((after - before) ** 2)))


def pixel_digest(images: Sequence[Image]) -> str:
    """SHA-256 over sizes and RGB pixels."""
    digest = hashlib.sha256()
    for picture in images:
        digest.update(f"{picture.width}x{picture.height};".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()


def clipped(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in whole pixels inside an image of `size`, at least one pixel wide and high; the far edges are exclusive."""
    x1, y1 = (min(max(0, int(v)), side - 1) for v, side in zip(box[:2], size, strict=True))
    x2, y2 = (min(max(first + 1, int(v)), side) for v, first, side in zip(box[2:], (x1, y1), size, strict=True))
    return x1, y1, x2, y2
