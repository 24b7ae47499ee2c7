"""A YOLO folder: images, a text file of labels for each, and `data.yaml` or `classes.txt`.

`data.yaml` has the `names` of the classes and, as `train`, `val` and `test`, folders of images or
text files that list them. With `classes.txt` (a name per line), all images are read, and a folder
`train`, `val`, `valid` or `test` in an image's path is its split. The labels of `images/train/1.jpg`
are in `labels/train/1.txt`, those of an image outside a folder `images` beside it. A line is the
class and the box (centre x, centre y, width, height) or a polygon, whose bounding box is used, in
fractions of the image. The format: https://docs.ultralytics.com/datasets/detect.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from perceptune.contracts.errors import UserError
from perceptune.contracts.files import IMAGE_SUFFIXES
from perceptune.core.data.row_checks import RowError, is_finite, one_line, shown
from perceptune.core.importers.detections import Asking, DetectionParameters, Thing, covered
from perceptune.core.importers.importer import Importer, Placed, Row, Source

KEYS = ("train", "val", "test")
SPLITS = (*KEYS, "valid")
CLASSES = "classes.txt"
BEYOND = 0.001
"""Share of the image by which a box may leave it: labels have few decimals."""


@dataclass(frozen=True)
class _Folder:
    """What the index of a folder says."""

    index: str
    """Name of the file with the names of the classes."""
    names: Mapping[int, str]
    images: Sequence[tuple[str | None, str]]
    """Split, and folder of images or text file that lists them."""
    keypoints: bool = False
    """Whether lines go on with keypoints after the box."""


def rows(source: Source) -> Iterator[Placed]:
    """The rows of all images, split by split."""
    folder = _indexed(source)
    asking, without, total = Asking(source), 0, 0
    for split, images in folder.images:
        expected = set[str]()
        for place, image in _images(source, images):
            if isinstance(image, RowError):
                yield place, image
                continue
            labels = _labels_of(image)
            expected.add(labels)
            total += 1
            things = _things(labels, folder, source) if (source.path / labels).is_file() else []
            without += not things
            of_image = split if split or folder.index != CLASSES else _split_in(image)
            row: Row = {"id": str(PurePosixPath(image).with_suffix("")), "image": image}
            yield from asking.rows({**row, "split": of_image} if of_image and not source.split else row, things, place)
        yield from _without_image(source, images, expected)
    if without:
        source.tell(f"{without:,} of {total:,} images have no labels")
    asking.tell()


def _indexed(source: Source) -> _Folder:
    """The index of the folder. Raises `UserError`."""
    if not source.path.is_dir():
        raise UserError(
            f"dataset `{source.path}` is a file, expected a folder", "give the folder with `data.yaml` or `classes.txt`"
        )
    found = [*source.names("*.yaml"), *source.names("*.yml")]
    known = [name for name in found if PurePosixPath(name).stem == "data"] or found
    if len(known) > 1:
        listed = ", ".join(f"`{name}`" for name in known)
        raise UserError(f"dataset `{source.path}` has {listed}, expected one of them", "name it `data.yaml`")
    if known:
        return _of_yaml(source, known[0])
    for name in (CLASSES, f"labels/{CLASSES}"):
        if (source.path / name).is_file():
            lines = [line.strip() for line in source.text(name).splitlines()]
            names = {number: line for number, line in enumerate(lines) if line}
            return _Folder(CLASSES, names, [(None, "images" if (source.path / "images").is_dir() else "")])
    raise UserError(
        f"dataset `{source.path}` has neither `data.yaml` nor `{CLASSES}`, expected one of them",
        "they name the classes; `path` is the folder that contains them",
    )


def _of_yaml(source: Source, name: str) -> _Folder:
    about = f"dataset file `{source.path / name}`"
    try:
        read = yaml.safe_load(source.text(name))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{about} is not valid YAML: {one_line(error)}") from None
    if not isinstance(read, Mapping):
        raise UserError(f"{about} is {shown(read)}, expected `names`, `train`, `val`")
    names = _names(read.get("names"), about)
    if read.get("nc", len(names)) != len(names):
        raise UserError(f"{about}: `nc` is {shown(read['nc'])}, but `names` has {len(names)}")
    images: list[tuple[str | None, str]] = []
    for key in KEYS:
        entries = read.get(key)
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            place = _place(source, read.get("path"), entry, f"{about}: `{key}`")
            before = next((other for other, known in images if known == place), None)
            if before is None:
                images.append((key, place))
            elif not source.split:
                raise UserError(
                    f"{about}: `{before}` and `{key}` are both `{one_line(entry)}`, expected different images",
                    f"`split: {before}` in the dataset block reads them once, as that split",
                )
    if not images:
        raise UserError(f"{about} has neither `train` nor `val` nor `test`, expected folders of images")
    return _Folder(name, names, images, "kpt_shape" in read)


def _names(given: Any, about: str) -> dict[int, str]:
    """The names of classes by number, from a list or a mapping. Raises `UserError`."""
    pairs = (
        list(given.items()) if isinstance(given, Mapping) else list(enumerate(given)) if isinstance(given, list) else []
    )
    if not pairs:
        raise UserError(f"{about}: `names` is {shown(given)}, expected the names of the classes")
    for number, name in pairs:
        if isinstance(number, bool) or not str(number).isdecimal():
            raise UserError(f"{about}: `names` has the key {shown(number)}, expected whole numbers")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise UserError(f"{about}: `names` has {shown(name)}, expected text", "write it in quotes")
    return {int(number): str(name) for number, name in pairs}


def _place(source: Source, base: Any, entry: Any, about: str) -> str:
    """The path of a folder or list of images in the source. Raises `UserError`.

    It is relative to `path`, or to the folder; Roboflow writes a `../` too many.
    """
    if not isinstance(entry, str):
        raise UserError(f"{about} is {shown(entry)}, expected the path of a folder or of a list of images")
    for one in (posixpath.join(base, entry) if isinstance(base, str) else entry, entry, entry.removeprefix("../")):
        path = _inside(one, source)
        if path is not None and (source.path / path).exists():
            return path
    raise UserError(
        f"{about} is `{one_line(entry)}`, which is not in the folder", "`path` is the folder that contains the images"
    )


def _inside(path: str, source: Source) -> str | None:
    """The path, relative to the folder; None if it leads out of it."""
    root = source.path.resolve()
    path = posixpath.relpath(path, root) if posixpath.isabs(path) else posixpath.normpath(path)
    return None if path.split("/")[0] == ".." else "" if path == "." else path


def _images(source: Source, place: str) -> Iterator[Placed]:
    """Place and path of the images in a folder, or in a text file that lists them."""
    if not (source.path / place).is_file():
        yield from ((name, name) for name in source.tree(place) if name.lower().endswith(IMAGE_SUFFIXES))
        return
    above = posixpath.dirname(place)
    for number, line in enumerate(source.text(place).splitlines(), 1):
        if line.strip():
            name = line.strip()
            path = _inside(posixpath.join(above, name) if name.startswith(".") else name, source)
            wrong = RowError(f"image `{one_line(name)}` is not in the folder")
            yield f"{place} line {number}", wrong if path is None else path


def _labels_of(image: str) -> str:
    """The path of an image's labels: in the folder `labels` for `images`, or beside it."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return "/".join(parts)


def _without_image(source: Source, images: str, expected: set[str]) -> Iterator[Placed]:
    """Labels in a folder of their own that belong to none of the images."""
    folder = posixpath.dirname(_labels_of(posixpath.join(images, "1")))
    if folder == images or (source.path / images).is_file():
        return
    for name in source.tree(folder):
        if name.endswith(".txt") and name not in expected and PurePosixPath(name).name != CLASSES:
            yield name, RowError(f"these labels have no image of that name in `{images}`")


def _split_in(image: str) -> str | None:
    return next((part for part in PurePosixPath(image).parts[:-1] if part.lower() in SPLITS), None)


def _things(name: str, folder: _Folder, source: Source) -> list[Thing]:
    """The objects in a file of labels."""
    things = []
    for number, line in enumerate(source.text(name).splitlines(), 1):
        if line.strip():
            place, category = f"{name} line {number}", ""
            try:
                category, box = _object(line.split(), folder)
            except RowError as wrong:
                things.append(Thing(place, category, wrong, None))
                continue
            x1, y1, x2, y2 = box
            row = {"id": f"{PurePosixPath(name).with_suffix('')}-{number}", "box": box}
            area = covered(x2 - x1, y2 - y1, source.coordinates or "normalised", (None, None))
            things.append(Thing(place, category, row, area))
    return things


def _object(cells: Sequence[str], folder: _Folder) -> tuple[str, list[float]]:
    """Category and corners of a line of labels. Raises `RowError`."""
    try:
        kind, *numbers = (float(cell) for cell in cells)
    except ValueError:
        raise RowError(f"found {shown(' '.join(cells))}, expected the number of a class and numbers") from None
    if not all(map(is_finite, numbers)):
        raise RowError(f"found {shown(' '.join(cells))}, expected finite numbers")
    if kind not in folder.names:
        raise RowError(
            f"class {cells[0]} is not in `{folder.index}`, expected {min(folder.names)} to {max(folder.names)}"
        )
    if len(numbers) == 4 or (folder.keypoints and len(numbers) > 4):
        x, y, width, height = numbers[:4]
        box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        box = [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]
    else:
        raise RowError(f"{len(numbers)} numbers after the class, expected 4 for a box or the corners of a polygon")
    return folder.names[int(kind)], [_on_image(number) for number in box]


def _on_image(share: float) -> float:
    """The share, or the edge of the image if it is hardly beyond."""
    nearest = min(max(share, 0.0), 1.0)
    return nearest if abs(share - nearest) <= BEYOND else share


IMPORTER = Importer("yolo", rows, coordinates="normalised", holds_images=True, Parameters=DetectionParameters)
