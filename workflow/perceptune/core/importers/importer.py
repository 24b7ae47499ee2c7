"""What a format of data sets declares: how its files become rows, and what the numbers of its boxes mean.

Formats that bring answers of models, such as preference pairs, keep them under the key `answers_given`: a list of
`{"text": str, "reward": float | None}`, best first where there is an order; of a pair the chosen answer first, with reward 1.0,
and the rejected one with 0.0. As every key that is not one of a row's own it lands in the column `source` (`answers_given`
below makes the list).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from perceptune.contracts.config import Coordinates, Task
from perceptune.core.data.embedded_images import image_in
from perceptune.core.data.row_checks import RowError, is_finite, one_line, shown

Row = dict[str, Any]
"""A row as `core.importing.checked_row` takes it: `id`, `image` or `images`, `question`, `answer`, `box`, `task`, `split`, and
`image_size`, the width and height of the (first) image that its box was drawn on, where the format says them;
every other key is kept in the column `source` of the `examples` table."""

Placed = tuple[str, Any]
"""A place in a file, such as `line 3`, and what stands there: a record, or the `RowError` of reading it."""


class Source(Protocol):
    """The file or folder that a dataset block names; reading is the business of `stages.reading`.

    A `name` is that of a file in the folder, or beside the file.
    """

    path: Path
    split: str | None
    """What the dataset block says of rows that name none: before what the names of files say."""

    def records(self, name: str | None = None) -> Iterator[Placed]:
        """The records of the file (or of file `name`), in order.

        JSON lines, a JSON list, Parquet, TSV with a header, or a folder written by `datasets.save_to_disk`; `split_files` reads
        a folder of Parquet files. Nulls are left out of records. Raises `UserError` for a file that cannot be read at all.
        """
        ...

    def names(self, pattern: str) -> list[str]:
        """Files of the folder that match the pattern, sorted; the file's own name if the source is a file that matches.

        Raises `UserError` for a folder that cannot be listed.
        """
        ...

    def document(self, name: str | None = None) -> Any:
        """The value of a JSON file as a whole, where that is no list of records; `UserError` for one that cannot be read."""
        ...

    def text(self, name: str) -> str:
        """The content of a UTF-8 text file; `UserError` for one that cannot be read."""
        ...

    def unpickled(self, name: str) -> Any:
        """A pickle of plain values (lists, dicts, strings, numbers); `UserError` for one that would run code."""
        ...


@dataclass(frozen=True)
class Importer:
    """A format of data sets, under the name that `kind` of a dataset block gives."""

    name: str
    rows: Callable[[Source], Iterator[Placed]]
    """Place and row, in the files' order; a `RowError` in place of a row that cannot be made."""
    coordinates: Coordinates | None = None
    """What the numbers of its boxes mean; None: the dataset block's `coordinates` says."""
    task: Task | None = None
    """Task of rows that name none, where the dataset block names none either."""
    reads: Literal["jsonl", "parquet", "hf"] | None = None
    """The only way that its file is read; None: what the file is decides."""
    counts: Mapping[str, int] | Callable[[Source], Mapping[str, int]] = field(default_factory=dict)
    """Published numbers of rows, by split or, under `all`, of everything; a function where they depend on the file. A different
    number is reported, not refused: people take parts."""
    beside: tuple[str, ...] = ()
    """Files that are read, too, where `path` is a file: they lie beside it."""
    imageless: bool = False
    """Whether questions may come without an image: their row has an empty list `images`."""

    def published(self, source: Source) -> Mapping[str, int]:
        """The published numbers of rows of this source."""
        return self.counts(source) if callable(self.counts) else self.counts


def as_written(source: Source) -> Iterator[Placed]:
    """Records that are rows already."""
    yield from source.records()


def each(record_to_row: Callable[[Mapping[str, Any]], Row]) -> Callable[[Source], Iterator[Placed]]:
    """The rows of a format with one row per record; `record_to_row` may raise `RowError` or `KeyError`.

    A row that names no split is of the split that the block says, or else the name of its file.
    """

    def rows(source: Source) -> Iterator[Placed]:
        for place, record, split in split_files(source):
            row = made(record_to_row, record)
            if split and isinstance(row, dict):
                row.setdefault("split", split)
            yield place, row

    return rows


def made(record_to_row: Callable[[Mapping[str, Any]], Row], record: Any) -> Row | RowError:
    """The row of a record, or what is wrong with it."""
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
    """What to say of a key that a record lacks: its name, and the first of those that there are."""
    names = [one_line(key) for key in islice(record, KEYS_SHOWN)]
    more = f" and {len(record) - KEYS_SHOWN:,} more" if len(record) > KEYS_SHOWN else ""
    return RowError(f"key `{one_line(missing.args[0])}` is missing; there are {', '.join(names)}{more}")


KEYS_SHOWN = 20
"""Keys that a message lists; a file that is one object may have tens of thousands."""
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})(-[0-9a-f]+)?\.parquet")
"""A Parquet file of a published data set: `validation-00000-of-00001.parquet`."""
SPLIT = re.compile(r"(train|val|dev|test|eval)[\w.]*")
"""What such a name says: `testA`, but nothing in `data-00000-of-00001.parquet`."""
SPLITS = ("train", "val", "validation", "dev", "test")
"""What the whole name of a file may be: `test.parquet`."""
IMAGE_MARK = re.compile(r"[ \t]*<image>[ \t]*\n?")


def split_files(source: Source) -> Iterator[tuple[str, Any, str | None]]:
    """Place, record and split of all files: what the name of a Parquet file says; None where it says none or the block does."""
    names = source.names("*.parquet")
    if not names:
        yield from ((place, record, None) for place, record in source.records())
    for name in names:
        split = None if source.split else split_of(name)
        for place, record in source.records(name):
            yield f"{name} {place}" if len(names) > 1 else place, record, split


def split_of(name: str) -> str | None:
    """The split that the name of a Parquet file says."""
    if match := SHARD.fullmatch(name):
        return match["name"] if SPLIT.fullmatch(match["name"]) else None
    whole = name.removesuffix(".parquet")
    return whole if whole in SPLITS else None


def missing_shards(names: Iterable[str]) -> list[str]:
    """The files that numbered Parquet files (`train-00000-of-00003.parquet`) lack among themselves."""
    numbers: dict[tuple[str, int], set[int]] = defaultdict(set)
    for name in names:
        if match := SHARD.fullmatch(name):
            numbers[match["name"], int(match["of"])].add(int(match["number"]))
    return [
        f"{name}-{number:05}-of-{of:05}.parquet"
        for (name, of), there in numbers.items()
        for number in range(of)
        if number not in there
    ]


def with_images(
    record_to_row: Callable[[Mapping[str, Any]], Row], *columns: str
) -> Callable[[Source], Iterator[Placed]]:
    """The rows of a format with one row per record, each with the image of the first of these columns that there is."""

    def rows(source: Source) -> Iterator[Placed]:
        images: dict[str, Any] = {}
        yield from each(lambda record: {**record_to_row(record), "image": image_in(record, columns, images)})(source)

    return rows


def first_of(record: Mapping[str, Any], *keys: str) -> Any:
    """The value under the first of these keys that there is; `KeyError` with the first one's name where there is none."""
    for key in keys:
        if key in record:
            return record[key]
    raise KeyError(keys[0])


def numbered(identity: str, seen: Counter[str]) -> str:
    """The identity at its first appearance; later ones are told apart by a number."""
    seen[identity] += 1
    return identity if seen[identity] == 1 else f"{identity}-{seen[identity]}"


def corners(box: Any) -> list[float]:
    """`[x, y, width, height]` as `[x1, y1, x2, y2]`; `RowError` for anything else than four finite numbers."""
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(is_finite, box)):
        raise RowError(f"`bbox` is {shown(box)}, expected four finite numbers [x, y, width, height]")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def without_image_marks(text: Any) -> str:
    """The text without its `<image>` marks: images go before the question. `RowError` for what is no text."""
    if not isinstance(text, str):
        raise RowError(f"the question is {shown(text)}, expected text")
    return IMAGE_MARK.sub(" ", text).strip() if "<image>" in text else text


def answers_given(texts: Sequence[Any], rewards: Sequence[float | None]) -> list[dict[str, Any]]:
    """Answers with their rewards, the best first; those without a reward stay in their order, at the end. Raises `RowError`."""
    if len(texts) != len(rewards):
        raise RowError(f"{len(texts)} answers with {len(rewards)} rewards, expected as many")
    for text in texts:
        if not isinstance(text, str):
            raise RowError(f"an answer is {shown(text)}, expected text")
    for reward in rewards:
        if reward is not None and not isinstance(reward, int | float):
            raise RowError(f"a reward is {shown(reward)}, expected a number")
    pairs = zip(texts, rewards, strict=True)
    ranked = sorted(pairs, key=lambda pair: float("inf") if pair[1] is None else -pair[1])
    return [{"text": text, "reward": reward} for text, reward in ranked]
