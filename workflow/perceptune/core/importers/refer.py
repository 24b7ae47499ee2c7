"""RefCOCO, RefCOCO+ and RefCOCOg in their original form (lichengunc/refer).

A pickle such as `refs(unc).p` and `instances.json`. The pickle has one dict per referred object:
`ref_id`, `ann_id`, `image_id`, `file_name`, `split` and `sentences`, each with `sent_id`, `raw` and
`sent`. Its `file_name` ends in the number of the annotation; the image file is named by
`instances.json`. One row per sentence; the question is `sent` alone, and the instruction to locate
it comes from the config's `prompt`.

`path` is the folder, or the pickle if the folder has several: RefCOCO comes with `refs(google).p`
and `refs(unc).p`, which split the same expressions differently. Papers report results on `unc`, and
for RefCOCOg on `umd`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, corners, made

INSTANCES = "instances.json"
Instances = tuple[dict[Any, Any], dict[Any, Any], dict[Any, str]]
"""Images and annotations by id, and category names by id."""

SENTENCES: dict[str, dict[str, int]] = {
    "refcoco unc": {"train": 120624, "val": 10834, "testA": 5657, "testB": 5095},
    "refcoco+ unc": {"train": 120191, "val": 10758, "testA": 5726, "testB": 4889},
    "refcocog umd": {"train": 80512, "val": 4896, "test": 9602},
}
"""Number of expressions by data set and split. Without `train` they sum to the 21,586, 21,373 and
14,498 that Ref-L4 reports; those of `train` are unverified."""


def rows(source: Source) -> Iterator[Placed]:
    """A row per sentence."""
    name = pickle_of(source)
    refs = source.unpickled(name)
    if not isinstance(refs, list):
        raise UserError(f"dataset file `{name}` has {type(refs).__name__}, expected a list of objects with `sentences`")
    instances = _instances(source)
    for number, ref in enumerate(refs, 1):
        place = f"object {number}"
        sentences = ref.get("sentences") if isinstance(ref, Mapping) else None
        if not isinstance(sentences, list) or not sentences:
            yield place, RowError(f"found {shown(ref)}, expected an object with `sentences`")
            continue
        for order, sentence in enumerate(sentences, 1):
            yield f"{place}, sentence {order}", made(partial(_row, ref, instances), sentence)


def _row(ref: Mapping[str, Any], instances: Instances, sentence: Mapping[str, Any]) -> Row:
    images, annotations, categories = instances
    for key in ("ann_id", "image_id"):
        if not isinstance(ref[key], int | str):
            raise RowError(f"`{key}` is {shown(ref[key])}, expected a number")
    annotation, image = annotations.get(ref["ann_id"]), images.get(ref["image_id"])
    if annotation is None or image is None:
        missing = f"annotation {ref['ann_id']}" if annotation is None else f"image {ref['image_id']}"
        raise RowError(f"{missing} is not in `{INSTANCES}`: is it from another data set?")
    if annotation.get("image_id", ref["image_id"]) != ref["image_id"]:
        raise RowError(
            f"annotation {ref['ann_id']} has image {shown(annotation['image_id'])} in `{INSTANCES}`, expected"
            f" {ref['image_id']}: is it from another data set?"
        )
    category = annotation.get("category_id")
    if category is not None and not isinstance(category, int | str):
        raise RowError(f"`category_id` of annotation {ref['ann_id']} is {shown(category)}, expected a number")
    row = {
        "id": f"{ref['ref_id']}-{sentence['sent_id']}",
        "image": image["file_name"],
        "question": sentence["sent"],
        "box": corners(annotation["bbox"]),
        "split": ref["split"],
        "ref_id": ref["ref_id"],
        "ann_id": ref["ann_id"],
        "category": categories.get(category),
    }
    if "width" in image and "height" in image:
        row["image_size"] = [image["width"], image["height"]]
    return row


def pickle_of(source: Source) -> str:
    """The name of the pickle. Raises `UserError` if there is none or more than one."""
    names = source.names("*.p")
    if len(names) != 1:
        found = f"has {', '.join(f'`{n}`' for n in names)}, expected one" if names else "has no `refs(...).p`"
        raise UserError(f"dataset `{source.path}` {found}", "set `path` to the file" if names else None)
    return names[0]


def _instances(source: Source) -> Instances:
    read = source.document(INSTANCES)
    try:
        images, annotations = ({one["id"]: one for one in read[key]} for key in ("images", "annotations"))
        return images, annotations, {one["id"]: one["name"] for one in read.get("categories", [])}
    except (TypeError, KeyError, AttributeError):
        raise UserError(
            f"`{INSTANCES}` of `{source.path}` has no COCO annotations, expected lists `images` and `annotations`"
        ) from None


def data_set_of(path: Path) -> str | None:
    """The data set that a path names: `refcoco`, `refcoco+` or `refcocog`; else None."""
    for part in reversed(path.parts):
        name = part.lower().replace("plus", "+").replace("_", "").replace("-", "")
        if name.startswith("refcoco"):
            return next((known for known in ("refcoco+", "refcocog") if name.startswith(known)), "refcoco")
    return None


def _published(source: Source) -> Mapping[str, int]:
    division = pickle_of(source).removeprefix("refs(").removesuffix(").p")
    return SENTENCES.get(f"{data_set_of(source.path)} {division}", {})


IMPORTER = Importer("refer", rows, coordinates="pixels", task="grounding", counts=_published, beside=(INSTANCES,))
