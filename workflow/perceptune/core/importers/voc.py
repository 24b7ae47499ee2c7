"""A folder of PASCAL VOC: `Annotations/*.xml`, `JPEGImages` and `ImageSets/Main/*.txt`.

An image set (`train.txt`, `val.txt` and `test.txt`, or `trainval.txt` if there is neither of the
first two) lists the images of a split. Without image sets, or if the dataset block has a `split`, all
annotations are read. Without a folder `Annotations`, the XML files may be anywhere in the folder, as
LabelImg writes them. Without `JPEGImages`, `filename` is relative to the folder of the dataset's
images. The format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from perceptune.core.data.disk_dict import DiskDict
from perceptune.core.data.row_checks import RowError, one_line, shown
from perceptune.core.importers.detections import Asking, DetectionParameters, Thing, covered
from perceptune.core.importers.importer import Importer, Placed, Row, Source

ANNOTATIONS, IMAGES, SETS = "Annotations", "JPEGImages", "ImageSets/Main"
SPLITS = ("train", "val", "trainval", "test")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocParameters(DetectionParameters):
    difficult: bool = False
    """Ask about objects that are marked as `difficult`, too. For `unique`, they always count."""
    one_based: bool = True
    """Read `xmin` and `ymin` as numbers of pixels counted from 1, as in PASCAL's own files, so that a
    box begins at `xmin` - 1. Turn this off for files of tools that count from 0."""


def rows(source: Source) -> Iterator[Placed]:
    """The rows of all images, split by split."""
    names: dict[str, str] = {}
    for name in _annotations(source):
        if (first := names.setdefault(PurePosixPath(name).stem, name)) != name:
            yield name, RowError(f"`{one_line(first)}` has the same name, which images are told apart by")
    asking = Asking(source)
    folder = f"{IMAGES}/" if (source.path / IMAGES).is_dir() else ""
    for place, stem, split in _images(source, names):
        try:
            if isinstance(stem, RowError):
                raise stem
            if stem not in names:
                raise RowError(f"image `{one_line(stem)}` has no `{ANNOTATIONS}/{one_line(stem)}.xml`")
            image, things = _annotated(_tree(source.content(names[stem])), stem, source)
        except RowError as wrong:
            yield place, wrong
            continue
        image["image"] = f"{folder}{image['image']}"
        yield from asking.rows(image if split is None else {**image, "split": split}, things, names[stem])
    asking.tell()


def _annotations(source: Source) -> Iterator[str]:
    """The names of the XML files."""
    folder = ANNOTATIONS if (source.path / ANNOTATIONS).is_dir() else ""
    return (name for name in source.tree(folder) if name.lower().endswith(".xml"))


def _images(source: Source, names: dict[str, str]) -> Iterator[tuple[str, str | RowError, str | None]]:
    """Place, name without suffix, and split of the images: those of the image sets, or all."""
    sets = {PurePosixPath(name).name.removesuffix(".txt"): name for name in source.tree(SETS)}
    splits = [split for split in SPLITS if split in sets and not source.split]
    if "train" in splits or "val" in splits:
        splits = [split for split in splits if split != "trainval"]
    if not splits:
        yield from ((name, stem, None) for stem, name in names.items())
        return
    first, listed = DiskDict(), 0
    for split in splits:
        for number, line in enumerate(source.text(sets[split]).splitlines(), 1):
            if not line.strip():
                continue
            stem, place = line.split()[0], f"{sets[split]} line {number}"
            if (before := first.setdefault(stem, place)) != place:
                yield place, RowError(f"image `{one_line(stem)}` was already listed in {before}"), split
                continue
            listed += stem in names
            yield place, stem, split
    if others := len(names) - listed:
        source.tell(f"{others:,} of {len(names):,} annotated images are in none of {', '.join(splits)}")


def _tree(content: bytes) -> Element:
    """The root of an XML document. Raises `RowError`, also for one with a DOCTYPE: only there can
    entities be defined, which may be files of this machine or grow without limit."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise RowError("it has a DOCTYPE, expected XML without one")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise RowError(f"not valid XML: {one_line(error)}") from None
    return builder.close()


def _annotated(root: Element, stem: str, source: Source) -> tuple[Row, list[Thing]]:
    """The columns of an image, and its objects. Raises `RowError`."""
    if root.tag != "annotation":
        raise RowError(f"the root is `<{one_line(root.tag)}>`, expected `<annotation>`")
    name = (root.findtext("filename") or "").strip()
    if not name:
        raise RowError("`<filename>` is missing or empty, expected the name of the image file")
    image: Row = {"id": stem, "image": name}
    width, height = (_number(root.findtext(f"size/{key}")) for key in ("width", "height"))
    if width and height:
        image["image_size"] = [width, height]
    objects = enumerate(root.findall("object"), 1)
    return image, [_thing(one, f"{stem}.xml object {n}", f"{stem}-{n}", (width, height), source) for n, one in objects]


def _thing(found: Element, place: str, identity: str, size: tuple[Any, Any], source: Source) -> Thing:
    """An object of an image of this width and height; None if they are unknown."""
    category = (found.findtext("name") or "").strip()
    if not category:
        return Thing(place, category, RowError("`<name>` is missing or empty, expected the category"), None)
    numbers = []
    for key in CORNERS:
        text = found.findtext(f"bndbox/{key}")
        number = _number(text)
        if number is None:
            return Thing(place, category, RowError(f"`<{key}>` is {shown(text)}, expected a number"), None)
        numbers.append(number)
    x1, y1, x2, y2 = numbers
    if source.parameters.one_based:
        x1, y1 = max(x1 - 1, 0.0), max(y1 - 1, 0.0)
    share = covered(x2 - x1, y2 - y1, source.coordinates or "pixels", size)
    marked = (found.findtext("difficult") or "").strip() == "1"
    left_out = "are marked as difficult (`difficult: true` keeps them)"
    row = {"id": identity, "box": [x1, y1, x2, y2]}
    return Thing(place, category, row, share, left_out if marked and not source.parameters.difficult else None)


def _number(text: str | None) -> float | None:
    """The finite number in a text; None without one."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


IMPORTER = Importer("voc", rows, coordinates="pixels", holds_images=True, Parameters=VocParameters)
