"""Questions about the objects of annotated images, for formats of object detection."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from perceptune.contracts.config import Coordinates, Share
from perceptune.core.data.coordinate_frames import SHARES
from perceptune.core.data.row_checks import RowError, is_finite
from perceptune.core.importers.importer import ImporterParameters, Placed, Row, Source

LOCATE, COUNT = "Locate the {category}.", "How many instances of {category} are in the image?"


class DetectionParameters(ImporterParameters):
    per: Literal["object", "category"] = "object"
    """`object`: a question per object, to locate it (`grounding`). `category`: a question per image
    and category in it, to count its objects (`counting`)."""
    question: Annotated[str, Field(pattern=r"\{category\}")] | None = None
    """The question, with `{category}` for the category's name; null: `Locate the {category}.` or
    `How many instances of {category} are in the image?`."""
    unique: bool = True
    """Leave out objects of a category that the image has several of, since the box of each of them
    would be right. Only with `per: object`."""
    min_area: Share = 0.0
    """Smallest share of the image's area that a box covers; smaller objects are left out, with
    `per: category` all of their category in the image."""
    max_area: Share = 1.0
    """Largest share of the image's area that a box covers; larger objects are left out likewise."""

    @model_validator(mode="after")
    def _is_consistent(self) -> DetectionParameters:
        if self.per == "category" and "unique" in self.model_fields_set:
            raise ValueError("`unique` is for `per: object`; remove it or `per: category`")
        if self.min_area >= self.max_area:
            raise ValueError(f"`min_area` {self.min_area:g} is not below `max_area` {self.max_area:g}")
        return self


@dataclass(frozen=True)
class Thing:
    """An annotated object."""

    place: str
    category: str
    row: Row | RowError
    """Its `id`, `box` and further columns, or why it cannot be used."""
    area: float | None
    """Share of the image that its box covers; None if the size of the image is unknown."""
    left_out: str | None = None
    """Why it is not asked about, such as `stand for a group`."""


def covered(across: float, down: float, unit: Coordinates, size: tuple[Any, Any]) -> float | None:
    """Share of an image that a box of this width and height in `unit` covers. None if it depends on the
    image's width and height, which are unknown."""
    most = SHARES[unit][1] if unit in SHARES else 1.0
    share = max(across, 0.0) * max(down, 0.0) / most**2
    if unit in ("normalised", "thousand"):
        return share
    if not all(is_finite(side) and side > 0 for side in size):
        return None
    area = size[0] * size[1]
    return share / area if unit == "pixels" else share * max(size) ** 2 / area


class Asking:
    """Makes questions and counts the objects that are left out."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parameters: DetectionParameters = source.parameters
        self._left_out: Counter[str] = Counter()
        self._asked = 0

    def rows(self, image: Row, things: Sequence[Thing], place: str) -> Iterator[Placed]:
        """The questions about an image, whose columns `image` are in every row.

        Unusable objects count as objects of their category.
        """
        by_category: defaultdict[str, list[Thing]] = defaultdict(list)
        for thing in things:
            by_category[thing.category].append(thing)
        if self._parameters.per == "category":
            yield from self._counts(image, by_category, place)
            return
        for thing in things:
            reason = self._reason(thing)
            if isinstance(thing.row, RowError):
                yield thing.place, thing.row
            elif isinstance(reason, RowError):
                yield thing.place, reason
            elif reason or (self._parameters.unique and len(by_category[thing.category]) > 1):
                self._left_out[reason or "have others of their category in the image (`unique: false` keeps them)"] += 1
            else:
                self._asked += 1
                yield thing.place, {**image, **thing.row, **self._question(thing.category, "grounding")}

    def tell(self) -> None:
        """Tells how many objects were left out, and why."""
        for reason, number in self._left_out.items():
            what = "objects" if self._parameters.per == "object" else "categories of images"
            self._source.tell(f"{number:,} {what} are left out because they {reason}; {self._asked:,} are asked about")

    def _counts(self, image: Row, by_category: dict[str, list[Thing]], place: str) -> Iterator[Placed]:
        for category, things in by_category.items():
            where = f"{place}, category {category}"
            unusable = next((thing for thing in things if isinstance(thing.row, RowError)), None)
            reasons = [reason for thing in things if (reason := self._reason(thing))]
            wrong = next((reason for reason in reasons if isinstance(reason, RowError)), None)
            if unusable is not None:
                yield unusable.place, unusable.row
            elif wrong is not None:
                yield where, wrong
            elif reasons:
                self._left_out[f"have objects that {reasons[0]}"] += 1
            else:
                self._asked += 1
                identity = {"id": f"{image['id']}-{category}", "answer": len(things)}
                yield where, {**image, **identity, **self._question(category, "counting")}

    def _question(self, category: str, task: str) -> dict[str, Any]:
        text = self._parameters.question or (LOCATE if task == "grounding" else COUNT)
        return {"question": text.replace("{category}", category), "task": task, "category": category}

    def _reason(self, thing: Thing) -> str | RowError | None:
        """Why an object is not asked about; None if it is."""
        least, most = self._parameters.min_area, self._parameters.max_area
        if thing.left_out or (least == 0 and most == 1):
            return thing.left_out
        if thing.area is None:
            return RowError("the size of the image is unknown, which `min_area` and `max_area` need")
        if thing.area < least:
            return f"cover less than {least:g} of the image (`min_area`)"
        return f"cover more than {most:g} of the image (`max_area`)" if most < 1 and thing.area > most else None
