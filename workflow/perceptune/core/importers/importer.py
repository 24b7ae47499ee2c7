"""Declaration of a data set format: how its files become rows, and the coordinates of its boxes.

Formats that contain responses of models, such as preference pairs, store them under the key
`answers_given`: a list of `{"text": str, "reward": float | None}`, best first if they are ordered.
A pair has the chosen response first with reward 1.0, then the rejected one with 0.0. Like every key
that is not one of a row's own, it is stored in the column `source` (`answers_given` below builds
the list).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from perceptune.contracts.config import Boxes, Coordinates, Task
from perceptune.core.data.disk_dict import DiskDict
from perceptune.core.data.embedded_images import image_in
from perceptune.core.data.row_checks import RowError, is_finite, one_line, shown

Row = dict[str, Any]
"""A row as `core.data.row_checks.checked_row` takes it: `id`, `image` or `images`, `question`,
`answer`, `box`, `task`, `split` and, if the format has it, `image_size`, the width and height of
the (first) image that the box was annotated on. Every other key is stored in the column `source` of
the table `examples`."""

Placed = tuple[str, Any]
"""A place in a file, such as `line 3`, and the record there, or the `RowError` of reading it."""


class ImporterParameters(BaseModel):
    """Base of a format's parameters: frozen; extra keys, infinite numbers and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Source(Protocol):
    """The file or folder that a dataset block names; `core.data.read_files` implements it.

    A `name` is that of a file in the folder, or in the same folder as the file.
    """

    path: Path
    split: str | None
    """The dataset block's split for rows without one; it overrides splits in file names."""
    parameters: Any
    """The dataset block's parameters, as the importer's `Parameters`."""
    boxes: Boxes | None
    """The dataset block's order of the numbers in a box; None: the importer's."""
    coordinates: Coordinates | None
    """The dataset block's unit of boxes; None: the importer's."""

    def records(self, name: str | None = None) -> Iterator[Placed]:
        """The records of the file (or of file `name`), in order, without null values.

        Reads JSON lines, a JSON list, Parquet, CSV or TSV with a header, or a folder written by
        `datasets.save_to_disk`; `split_files` reads a folder of Parquet files. Raises `UserError`
        if the file cannot be read at all.
        """
        ...

    def columns(self) -> list[str]:
        """The names of the columns of a CSV file, of which a record has been read."""
        ...

    def names(self, pattern: str) -> list[str]:
        """Names of the folder's files that match the pattern, sorted.

        If the source is a file, its own name if it matches. Raises `UserError` if the folder cannot
        be listed.
        """
        ...

    def document(self, name: str | None = None) -> Any:
        """The whole value of a JSON file that is not a list of records. Raises `UserError`."""
        ...

    def members(self, name: str | None = None) -> Iterator[tuple[str, Any]]:
        """Key and element of all lists in a JSON file that is one object, one element at a time.

        Raises `UserError`.
        """
        ...

    def text(self, name: str) -> str:
        """The content of a UTF-8 text file. Raises `UserError` if it cannot be read."""
        ...

    def content(self, name: str) -> bytes:
        """The content of a small file. Raises `UserError` if it cannot be read."""
        ...

    def tree(self, folder: str = "") -> Iterator[str]:
        """Names, such as `labels/train/1.txt`, of all files in this folder of the source and in its
        sub-folders, sorted. Hidden files are left out, and links to folders are not followed.

        Yields nothing if the folder does not exist. Raises `UserError` if the source is not a folder.
        """
        ...

    def tell(self, text: str) -> None:
        """Adds a line to the log of the import, such as the number of records that are left out."""
        ...

    def unpickled(self, name: str) -> Any:
        """A pickle of plain values (lists, dicts, strings, numbers).

        Raises `UserError` if the pickle could run code or cannot be read.
        """
        ...


@dataclass(frozen=True)
class Importer:
    """A data set format; `kind` of a dataset block selects it by name."""

    name: str
    rows: Callable[[Source], Iterator[Placed]]
    """Place and row, in the files' order; a `RowError` instead of an invalid row."""
    coordinates: Coordinates | None = None
    """Coordinates of its boxes; None: the dataset block's `coordinates`."""
    boxes: Boxes | None = None
    """Order of the numbers in its boxes, if the dataset block does not set `boxes`. None: the format
    declares its coordinates, and the order is always [x1, y1, x2, y2], which no block can set."""
    task: Task | None = None
    """Default task if neither the row nor the dataset block has one."""
    reads: Literal["jsonl", "csv", "parquet", "hf"] | None = None
    """Container of its files; None: detected from the file."""
    counts: Mapping[str, int] | Callable[[Source], Mapping[str, int]] = field(default_factory=dict)
    """Published numbers of rows by split, or in total under `all`; a function if they depend on the
    file. A different number is only reported, since subsets are common."""
    beside: tuple[str, ...] = ()
    """Further files that are read from the same folder if `path` is a file."""
    imageless: bool = False
    """Whether rows without an image are allowed: their list `images` is empty."""
    holds_images: bool = False
    """Whether `path` is a folder that contains the image files."""
    bytes_per_image: int = 200
    """Bytes of JSON or CSV for each image that they name, an assumption for the time of an import."""
    Parameters: type[ImporterParameters] = ImporterParameters
    """Model of the dataset block's `parameters`."""

    @property
    def orders(self) -> tuple[Boxes, ...]:
        """The orders of a box's numbers that a dataset block may set."""
        return get_args(Boxes) if self.boxes or self.coordinates is None else ()

    def published(self, source: Source) -> Mapping[str, int]:
        """The published numbers of rows of this source."""
        return self.counts(source) if callable(self.counts) else self.counts


def as_written(source: Source) -> Iterator[Placed]:
    """Rows of a format whose records already are rows."""
    yield from source.records()


def each(record_to_row: Callable[[Mapping[str, Any]], Row]) -> Callable[[Source], Iterator[Placed]]:
    """Rows of a format with one row per record; `record_to_row` may raise `RowError` or `KeyError`.

    A row without a split gets the dataset block's split, or else that of its file name.
    """

    def rows(source: Source) -> Iterator[Placed]:
        for place, record, split in split_files(source):
            row = made(record_to_row, record)
            if split and isinstance(row, dict):
                row.setdefault("split", split)
            yield place, row

    return rows


def made(record_to_row: Callable[[Mapping[str, Any]], Row], record: Any) -> Row | RowError:
    """The row of a record, or a `RowError`."""
    if isinstance(record, RowError):
        return record
    if not isinstance(record, Mapping):
        return RowError(f"found {str(record)[:60]!r}, expected an object")
    try:
        return record_to_row(record)
    except KeyError as missing:
        return missing_key(missing, record)
    except RowError as wrong:
        return wrong


def missing_key(missing: KeyError, record: Mapping[str, Any]) -> RowError:
    """The error for a missing key: its name, and the first keys that the record has."""
    names = [one_line(key) for key in islice(record, KEYS_SHOWN)]
    more = f" and {len(record) - KEYS_SHOWN:,} more" if len(record) > KEYS_SHOWN else ""
    return RowError(f"key `{one_line(missing.args[0])}` is missing; found keys {', '.join(names)}{more}")


KEYS_SHOWN = 20
"""Number of keys that a message lists: a file that is one object may have tens of thousands."""
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})(-[0-9a-f]+)?\.parquet")
"""A Parquet file of a published data set: `validation-00000-of-00001.parquet`."""
SPLIT = re.compile(r"(train|val|dev|test|eval)[\w.]*", re.IGNORECASE)
"""A shard name that is a split, such as `testA`; `data-00000-of-00001.parquet` has none."""
SPLITS = ("train", "val", "valid", "validation", "dev", "test", "eval")
"""Stems of unnumbered files that are splits, in upper or lower case: `test.parquet`."""
IMAGE_MARK = re.compile(r"[ \t]*<image>[ \t]*\n?")


def split_files(source: Source) -> Iterator[tuple[str, Any, str | None]]:
    """Place, record and split of all files.

    The split is that of a Parquet file's name; None if the name has none or the dataset block sets
    one.
    """
    names = source.names("*.parquet")
    if not names:
        yield from ((place, record, None) for place, record in source.records())
    for name in names:
        split = None if source.split else split_of(name)
        for place, record in source.records(name):
            yield f"{name} {place}" if len(names) > 1 else place, record, split


def split_of(name: str) -> str | None:
    """The split in the name of a Parquet file; None if it has none."""
    if match := SHARD.fullmatch(name):
        return match["name"] if SPLIT.fullmatch(match["name"]) else None
    whole = name.removesuffix(".parquet")
    return whole if whole.lower() in SPLITS else None


def missing_shards(names: Iterable[str]) -> list[str]:
    """Missing files of incomplete sets of shards (`train-00000-of-00003.parquet`)."""
    numbers: dict[tuple[str, int], set[int]] = defaultdict(set)
    for name in names:
        if match := SHARD.fullmatch(name):
            numbers[match["name"], int(match["of"])].add(int(match["number"]))
    return [
        f"{name}-{number:05}-of-{of:05}.parquet"
        for (name, of), present in numbers.items()
        for number in range(of)
        if number not in present
    ]


def with_images(
    record_to_row: Callable[[Mapping[str, Any]], Row], *columns: str
) -> Callable[[Source], Iterator[Placed]]:
    """Rows with one row per record, with the image of the first existing one of `columns`."""

    def rows(source: Source) -> Iterator[Placed]:
        images = DiskDict()
        yield from each(lambda record: {**record_to_row(record), "image": image_in(record, columns, images)})(source)

    return rows


def first_of(record: Mapping[str, Any], *keys: str) -> Any:
    """The value of the first existing key; raises `KeyError` with the first key if none does."""
    for key in keys:
        if key in record:
            return record[key]
    raise KeyError(keys[0])


def numbered(identity: str, seen: Counter[str]) -> str:
    """The identity at its first occurrence; with a number appended at later ones."""
    seen[identity] += 1
    return identity if seen[identity] == 1 else f"{identity}-{seen[identity]}"


def corners(box: Any) -> list[float]:
    """`[x, y, width, height]` as `[x1, y1, x2, y2]`; raises `RowError` if not finite numbers."""
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(is_finite, box)):
        raise RowError(f"`bbox` is {shown(box)}, expected four finite numbers [x, y, width, height]")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def without_image_marks(text: Any) -> str:
    """The text without `<image>` placeholders: images precede the question. Raises `RowError`."""
    if not isinstance(text, str):
        raise RowError(f"the question is {shown(text)}, expected text")
    return IMAGE_MARK.sub(" ", text).strip() if "<image>" in text else text


def answers_given(texts: Sequence[Any], rewards: Sequence[float | None]) -> list[dict[str, Any]]:
    """Responses with rewards, best first, those without a reward last. Raises `RowError`."""
    if len(texts) != len(rewards):
        raise RowError(f"{len(texts)} answers with {len(rewards)} rewards, expected one reward per answer")
    for text in texts:
        if not isinstance(text, str):
            raise RowError(f"an answer is {shown(text)}, expected text")
    for reward in rewards:
        if reward is not None and not isinstance(reward, int | float):
            raise RowError(f"a reward is {shown(reward)}, expected a number")
    pairs = zip(texts, rewards, strict=True)
    ranked = sorted(pairs, key=lambda pair: float("inf") if pair[1] is None else -pair[1])
    return [{"text": text, "reward": reward} for text, reward in ranked]
