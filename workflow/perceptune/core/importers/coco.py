"""COCO's annotations of objects, such as `instances_train2017.json`, as questions about them.

A file with the lists `images` (`id`, `file_name`, and usually `width` and `height`), `annotations`
(`id`, `image_id`, `category_id`, `bbox` as [x, y, width, height] in pixels, `iscrowd`) and
`categories` (`id`, `name`). `path` is the file, or a folder with a single `*.json` file; `images` is
the folder that `file_name` is relative to. The format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.coordinate_frames import LAYOUTS
from perceptune.core.data.row_checks import RowError, is_finite, shown
from perceptune.core.importers.detections import Asking, DetectionParameters, Thing, covered
from perceptune.core.importers.importer import Importer, Placed, Row, Source, missing_key

LISTS = ("images", "annotations", "categories")
SPLIT = re.compile(r"_(train|val|valid|test)\d*\.json$", re.IGNORECASE)
"""The end of a name that says the split: `instances_val2017.json`."""


class CocoParameters(DetectionParameters):
    crowd: bool = False
    """Ask about annotations of whole groups (`iscrowd`), too. For `unique`, they always count."""


@dataclass
class _Annotations:
    """What is needed of a file. Segmentations, which are most of it, are not kept."""

    images: dict[int | str, tuple[Any, Any, Any]] = field(default_factory=dict)
    """File name, width and height by id."""
    categories: dict[int | str, Any] = field(default_factory=dict)
    objects: dict[Any, list[tuple[int, Any, Any, Any, bool]]] = field(default_factory=lambda: defaultdict(list))
    """Number, id, category, box and whether it is a group, by image."""
    wrong: list[Placed] = field(default_factory=list)


def rows(source: Source) -> Iterator[Placed]:
    """The rows of all images, in the order of their annotations."""
    name = _file(source)
    found = _read(source, name)
    split = None if source.split else SPLIT.search(name)
    asking = Asking(source)
    yield from found.wrong
    for identity, objects in found.objects.items():
        things = [_thing(one, identity, found, source) for one in objects]
        if identity not in found.images:
            yield from ((thing.place, thing.row) for thing in things)
            continue
        file, width, height = found.images[identity]
        image: Row = {"id": str(identity), "image": file, "image_id": identity}
        if split:
            image["split"] = split[1]
        if width and height:
            image["image_size"] = [width, height]
        yield from asking.rows(image, things, f"image {identity}")
    asking.tell()
    if without := len(found.images.keys() - found.objects.keys()):
        source.tell(f"{without:,} of {len(found.images):,} images have no annotations")


def _file(source: Source) -> str:
    """The name of the file. Raises `UserError` if the folder has none, or several."""
    names = source.names("*.json")
    if len(names) == 1:
        return names[0]
    if not names and not source.path.is_dir():
        return source.path.name
    what = f"has {', '.join(f'`{name}`' for name in names[:5])}, expected one" if names else "has no `*.json` file"
    raise UserError(f"dataset `{source.path}` {what}", "set `path` to the file with the annotations")


def _read(source: Source, name: str) -> _Annotations:
    found, seen = _Annotations(), dict.fromkeys(LISTS, 0)
    for key, record in source.members(name):
        if key not in seen:
            continue
        seen[key] += 1
        try:
            _add(found, key, seen[key], record)
        except KeyError as missing:
            found.wrong.append((f"{key[:-1]} {seen[key]}", missing_key(missing, record)))
        except RowError as wrong:
            found.wrong.append((f"{key[:-1]} {seen[key]}", wrong))
    if without := [f"`{key}`" for key in LISTS if not seen[key]]:
        raise UserError(
            f"dataset file `{source.path}`: {' and '.join(without)} {'are' if len(without) > 1 else 'is'} missing or empty,"
            " expected COCO annotations with the lists `images`, `annotations` and `categories`"
        )
    return found


def _add(found: _Annotations, key: str, number: int, record: Any) -> None:
    """Adds an image, a category or an annotation. Raises `RowError` and `KeyError`."""
    if not isinstance(record, Mapping):
        raise RowError(f"found {shown(record)}, expected an object")
    if key == "images":
        identity = _id(record, "id")
        if identity in found.images:
            raise RowError(f"`id` {shown(identity)} was already used, expected unique ids")
        found.images[identity] = record["file_name"], record.get("width"), record.get("height")
    elif key == "categories":
        found.categories[_id(record, "id")] = record["name"]
    else:
        image, category = _id(record, "image_id"), _id(record, "category_id")
        group = bool(record.get("iscrowd"))
        found.objects[image].append((number, record.get("id", number), category, record["bbox"], group))


def _id(record: Mapping[str, Any], key: str) -> int | str:
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError(f"`{key}` is {shown(value)}, expected a whole number")
    return value


def _thing(one: tuple[int, Any, Any, Any, bool], image: int | str, found: _Annotations, source: Source) -> Thing:
    number, identity, category, box, group = one
    place, name = f"annotation {number}", str(found.categories.get(category, category))
    reason = None
    if image not in found.images:
        reason = f"`image_id` is {shown(image)}, which is no `id` of `images`"
    elif category not in found.categories:
        reason = f"`category_id` is {shown(category)}, which is no `id` of the {len(found.categories)} `categories`"
    elif not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        reason = f"`bbox` is {shown(box)}, expected four finite numbers {LAYOUTS[source.boxes or 'xywh']}"
    if reason:
        return Thing(place, name, RowError(reason), None)
    left_out = "stand for a group (`crowd: true` keeps them)" if group and not source.parameters.crowd else None
    return Thing(place, name, {"id": identity, "box": box}, _area(box, found.images[image], source), left_out)


def _area(box: list[float], image: tuple[Any, Any, Any], source: Source) -> float | None:
    """Share of the image that a box covers; None if its size is unknown."""
    _, width, height = image
    a, b, c, d = box
    across, down = (c - a, d - b) if source.boxes in ("xyxy", "yxyx") else (c, d)
    return covered(across, down, source.coordinates or "pixels", (width, height))


IMPORTER = Importer("coco", rows, coordinates="pixels", boxes="xywh", bytes_per_image=2000, Parameters=CocoParameters)
