"""Validate user rows: every mistake becomes one clear line, every valid row an example."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from perceptune.contracts.config import Boxes, Coordinates, FileDataset, Task
from perceptune.contracts.errors import near, nearest, printable
from perceptune.core.answers.short_answers import normalised
from perceptune.core.data.coordinate_frames import (
    IN_SHARES,
    LAYOUTS,
    SHARES,
    are_fractions,
    in_corners,
    in_pixels,
    most_of,
    slack,
)
from perceptune.core.data.inline_images import inline_image, is_inline, is_url

KEYS = ("id", "image", "images", "question", "answer", "box", "task", "split", "image_size")
SIMILAR = ("answers_given",)
"""Keys that have a meaning of their own and are similar to others."""
MISSPELLED = 0.61
"""Similarity from which a key is taken for a misspelled one: `image_path` and `image` have 0.67,
`frage` and `image` 0.6."""
TASKS = get_args(Task)
MARK = "<image>"
"""Placeholder of an image in text, as many trainers' formats have it."""


class RowError(ValueError):
    """One row is invalid; the reader adds file and line to the message."""


def checked_row(row: Any, block: FileDataset, imageless: bool = False) -> dict[str, Any]:
    """The row with typed fields.

    They are example_id (or None), images (list of structs), task, question, target, box, split and
    source (JSON of all other keys). `box` is still in the dataset's coordinates and order. `imageless`:
    whether the list of images may be empty. Raises `RowError`.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"found {shown(row)}, expected an object with keys `image` and `question`")
    task = _task(row, block)
    images = _images(row, imageless)
    return {
        "example_id": _identity(row),
        "images": images,
        "question": _question(row, len(images)),
        "task": task,
        "target": _target(row, task),
        "box": _box(row, task, block.boxes),
        "split": _split(row, block.split or "train"),
        "source": json.dumps({k: v for k, v in row.items() if k not in KEYS}, default=_written)
        if set(row) - set(KEYS)
        else None,
    }


def _written(value: Any) -> str:
    """The form in `source` of a value that JSON lacks; for bytes, only their number."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def shown(value: Any) -> str:
    """A value as quoted in a message: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(text: object) -> str:
    """A name or another library's message as quoted in a message: one line of about 120 characters."""
    line = printable(str(text)).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= 120 else f"{line[:60]}...{line[-40:]}"


def pixel_box(box: list[float], block: FileDataset, size: tuple[int, int]) -> list[float]:
    """The box in pixels of the image.

    In a padded frame, a box that reaches into the padding because of rounding is clipped. Raises
    `RowError` with the likely cause if the box is not in the image.
    """
    coordinates: Coordinates = block.coordinates or "pixels"
    order: Boxes = block.boxes or "xyxy"
    width, height = size
    corners = in_corners(np.array([box]), order)
    most = corners.max()
    if coordinates in SHARES and most > most_of(coordinates):
        raise RowError(
            f"`box` {box} exceeds {SHARES[coordinates][1]:g}, expected {coordinates} coordinates;"
            " if it is in pixels, set `coordinates: pixels`"
        )
    sizes = np.array([size], dtype=float)
    x1, y1, x2, y2 = in_pixels(corners, coordinates, sizes)[0].tolist()
    if x2 <= x1 or y2 <= y1:
        larger = "positive width and height" if order in ("xywh", "cxcywh") else "x1 < x2 and y1 < y2"
        raise RowError(f"`box` {box} has no area, expected {LAYOUTS[order]} with {larger}")
    free = slack(coordinates, sizes)[0]
    if min(x1, y1) < -free or x2 > width + free or y2 > height + free:
        where = "lies in the padding of" if coordinates.startswith("padded") else "exceeds"
        raise RowError(f"`box` {box} {where} the image of {width} x {height} pixels")
    if coordinates not in IN_SHARES and ((most <= 1 and max(size) > 2) or are_fractions(np.array([box]), sizes)[0]):
        unit = "pixel" if coordinates == "pixels" else "thousandth"
        raise RowError(f"`box` {box} is smaller than a {unit}; fractions of the image need `coordinates: normalised`")
    if coordinates.startswith("padded"):
        return [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    return [x1, y1, x2, y2]


def check_size(row: Mapping[str, Any], size: tuple[int, int], turned: bool) -> None:
    """Raise `RowError` if the row's `image_size` differs: boxes would be wrong on a resized image.

    `size` is that of the upright image; `turned`: whether the EXIF orientation rotated it.
    """
    expected = row.get("image_size")
    if expected is None:
        return
    if not isinstance(expected, list) or len(expected) != 2 or not all(map(is_finite, expected)):
        raise RowError(f"`image_size` is {shown(expected)}, expected [width, height] in pixels")
    if tuple(expected) == tuple(size):
        return
    found = f"the image has {size[0]} x {size[1]} pixels"
    wanted = f"the annotations expect {expected[0]} x {expected[1]}"
    if turned and tuple(expected) == (size[1], size[0]):
        raise RowError(
            f"{found} after applying its EXIF orientation, {wanted}, as stored: boxes refer to the upright image;"
            " rotate the boxes, or remove the EXIF tag from the image"
        )
    raise RowError(f"{found}, {wanted}: boxes are wrong on a resized image, use the original")


def _identity(row: Mapping[str, Any]) -> str | None:
    value = row.get("id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowError(f"`id` is {shown(value)}, expected a string or an integer")
    return _valid(str(value), "id")


def _images(row: Mapping[str, Any], imageless: bool) -> list[dict[str, Any]]:
    if "image" not in row and "images" not in row:
        _missing(row, "image")
    one, several = row.get("image"), _from_json(row.get("images"))
    if one is not None and several is not None and several != [one]:
        raise RowError(f"`image` is {shown(one)} and `images` is {shown(several)}, expected only one of the two keys")
    images = several if one is None and "images" in row else [one]
    if not isinstance(images, list) or not (images or imageless):
        raise RowError(f"`images` is {shown(images)}, expected a list of paths")
    if not images and row.get("box") is not None:
        raise RowError("`box` in a row without an image, expected no `box`")
    return [_image(image) for image in images]


def _image(image: Any) -> dict[str, Any]:
    if isinstance(image, str) and image:
        return _named_image(image)
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    if isinstance(image, Mapping):
        data, path = image.get("bytes"), image.get("path")
        if isinstance(data, bytes):
            return {"bytes": data, "path": path if isinstance(path, str) else None}
        if data is None and isinstance(path, str) and path:
            return _named_image(path)
    raise RowError(f"`image` is {shown(image)}, expected a path")


def _named_image(text: str) -> dict[str, Any]:
    """The image that a text names or, as base64, contains."""
    if is_url(text):
        raise RowError(f"image `{one_line(text)}` is a URL; URLs are not downloaded, expected the path of a local file")
    if not is_inline(text):
        return {"bytes": None, "path": text}
    try:
        return {"bytes": inline_image(text), "path": None}
    except ValueError as error:
        raise RowError(f"`image` is {shown(text)}, {error}") from None


def _question(row: Mapping[str, Any], images: int) -> str:
    if "question" not in row:
        _missing(row, "question")
    question = row["question"]
    if isinstance(question, str) and MARK in question:
        question = text_without_images(split_at_marks(question), images)
    if not isinstance(question, str) or not question.strip():
        raise RowError(f"`question` is {shown(row['question'])}, expected text")
    return _valid(question, "question")


def split_at_marks(text: str) -> list[str | None]:
    """The pieces of a text, with None for each `<image>` in it."""
    first, *others = text.split(MARK)
    return [first, *(piece for other in others for piece in (None, other))]


def text_without_images(pieces: Sequence[str | None], images: int) -> str:
    """The text of a question whose images all come before or all after it; None stands for one.

    Raises `RowError`, also if the number of images differs from `images`.
    """
    marks = sum(piece is None for piece in pieces)
    if marks not in (0, images):
        raise RowError(f"{marks} `{MARK}` placeholders for {images} images, expected {images} or none")
    written = [piece is not None for piece in pieces if piece is None or piece.strip()]
    if written != sorted(written) and written != sorted(written, reverse=True):
        raise RowError("an image inside the text, expected all images before the text")
    text = "".join(piece for piece in pieces if piece is not None)
    return text.strip() if marks else text


def _task(row: Mapping[str, Any], block: FileDataset) -> str:
    task = block.task if row.get("task") is None else row["task"]
    if task is None:
        _missing(row, "task", f"; add it ({', '.join(TASKS)}), or set `task` in the dataset block, for all rows")
    if not isinstance(task, str) or task not in TASKS:
        hint = near(str(task), TASKS)
        raise RowError(f"`task` is {shown(task)}, expected one of {', '.join(TASKS)}" + (f"; {hint}" if hint else ""))
    return str(task)


def _target(row: Mapping[str, Any], task: str) -> str | None:
    answer = row.get("answer")
    if answer is None:
        if task in ("ocr", "existence", "counting"):
            _misspelled(row, "answer")
        return None
    if task == "existence" and str(answer).strip().lower() not in ("yes", "no"):
        raise RowError(f"`answer` is {shown(answer)}, expected `yes` or `no` for task `existence`")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise RowError(f"`answer` is {shown(answer)}, expected text or a number")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise RowError(f"`answer` is {shown(answer)}, expected text or a finite number")
    if task == "counting" and not normalised(str(answer)).isdecimal():
        raise RowError(
            f"`answer` is {shown(answer)}, expected a whole number, such as `3`, for task `counting`;"
            " task `open` allows text"
        )
    if isinstance(answer, str) and not answer.strip() and task == "open":
        raise RowError(f"`answer` is {shown(answer)}, expected text or a number; leave the key out if there is none")
    if isinstance(answer, float) and answer.is_integer():  # as pandas writes integers beside missing values
        return str(int(answer))
    return _valid(str(answer), "answer")


def _valid(text: str, key: str) -> str:
    """The text if it can be encoded: JSON escapes can contain unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(f"`{key}` is {shown(text)}, not valid Unicode (an unpaired surrogate)") from None
    return text


def _from_json(value: Any) -> Any:
    """The list that a text is in JSON, as lists become in CSV; other values unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _box(row: Mapping[str, Any], task: str, order: Boxes | None) -> list[float] | None:
    box = _from_json(row.get("box"))
    if box is None:
        if task == "grounding":
            _misspelled(row, "box")
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise RowError(f"`box` is {shown(box)}, expected four finite numbers {LAYOUTS[order or 'xyxy']}")
    return [float(v) for v in box]


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number that a float can represent."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _split(row: Mapping[str, Any], default: str) -> str:
    """The split without surrounding blanks, which no one sees in a spreadsheet."""
    value = row.get("split")
    if value is None:
        return default
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"`split` is {shown(value)}, expected text")
    return _valid(value.strip(), "split")


def _misspelled(row: Mapping[str, Any], key: str) -> None:
    """Raises `RowError` if a row without a ground truth has one under a similar key.

    Whether it needs one is known where a reward is to read it.
    """
    if misspelling(key, row):
        _missing(row, key)


def _missing(row: Mapping[str, Any], key: str, otherwise: str = "") -> None:
    typed = misspelling(key, row)
    raise RowError(f"key `{key}` is missing{f'; is it {typed}, misspelled?' if typed else otherwise}")


def misspelling(key: str, found: Iterable[str]) -> str | None:
    """The name, in backticks, that is likely to be a misspelled key; None if no name is."""
    typed = nearest(key, [name for name in found if name not in KEYS and name not in SIMILAR], MISSPELLED)
    return f"`{one_line(typed)}`" if typed else None
