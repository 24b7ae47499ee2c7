"""What a format of data sets declares: how its files become rows, and what the numbers of its boxes mean.

Formats that bring answers of models, such as preference pairs, keep them under the key `answers_given`: a list of
`{"text": str, "reward": float | None}`, best first where there is an order; of a pair the chosen answer first, with reward 1.0,
and the rejected one with 0.0. As every key that is not one of a row's own it lands in the column `source` (`answers_given`
below makes the list).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from perceptune.contracts.config import Coordinates, Task
from perceptune.core.embedded import image_in
from perceptune.core.importing import RowError, shown

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

    def records(self, name: str | None = None) -> Iterator[Placed]:
        """The records of the file (or of file `name`), in order.

        JSON lines, a JSON list, Parquet, TSV with a header, or a folder written by `datasets.save_to_disk`, whatever it is
        called; a folder of Parquet files one after the other. Nulls are left out of records. Raises `UserError` for a file
        that cannot be read at all.
        """
        ...

    def names(self, pattern: str) -> list[str]:
        """Files of the folder that match the pattern, sorted; the file's own name if the source is a file that matches."""
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
    """The rows of a format with one row per record; `record_to_row` may raise `RowError` or `KeyError`."""

    def rows(source: Source) -> Iterator[Placed]:
        for place, record in source.records():
            yield place, made(record_to_row, record)

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
        return RowError(f"key `{missing.args[0]}` is missing; there are {', '.join(map(str, record))}")
    except RowError as wrong:
        return wrong


SHARD = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?\.parquet")
"""A Parquet file of a published data set: `validation-00000-of-00001.parquet`."""
IMAGE_MARK = re.compile(r"[ \t]*<image>[ \t]*\n?")


def split_files(source: Source) -> Iterator[tuple[str, Any, str | None]]:
    """Place, record and split, the split being the name of the Parquet file; None where there is none of such a name."""
    names = source.names("*.parquet")
    if not names:
        yield from ((place, record, None) for place, record in source.records())
    for name in names:
        match = SHARD.fullmatch(name)
        split = match["split"] if match and match[2] else None
        for place, record in source.records(name if len(names) > 1 else None):
            yield f"{name} {place}" if len(names) > 1 else place, record, split


def with_images(
    record_to_row: Callable[[Mapping[str, Any]], Row], *columns: str
) -> Callable[[Source], Iterator[Placed]]:
    """The rows of a format with one row per record, each with the image of the first of these columns that there is."""

    def rows(source: Source) -> Iterator[Placed]:
        images: dict[str, Any] = {}

        def row(record: Mapping[str, Any]) -> Row:
            return {**record_to_row(record), "image": image_in(record, columns, images)}

        for place, record in source.records():
            yield place, made(row, record)

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
    """`[x, y, width, height]` as `[x1, y1, x2, y2]`; `RowError` for anything else than four numbers."""
    numbers = isinstance(box, Sequence) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers:
        raise RowError(f"`bbox` is {shown(box)}, expected four numbers [x, y, width, height]")
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
