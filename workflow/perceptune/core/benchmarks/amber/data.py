"""AMBER's questions: 1,004 images to describe and 14,216 yes/no questions about them.

`path` is a folder like the authors' `data`, with `query_all.json` (or `query/query_all.json`),
`annotations.json`, `relation.json` and `safe_words.txt`; or a single query file with the other
three next to it. Images are named `AMBER_1.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, made

ALL = "query_all.json"
BESIDE = ("annotations.json", "relation.json", "safe_words.txt")
PUBLISHED = {
    ALL: 15220,
    "query_generative.json": 1004,
    "query_discriminative.json": 14216,
    "query_discriminative-attribute.json": 7628,
    "query_discriminative-existence.json": 4924,
    "query_discriminative-relation.json": 1664,
}
GENERATIVE = "generative"


def rows(source: Source) -> Iterator[Placed]:
    """The rows of the query file, each with its annotation; description rows also have the word
    lists that scoring needs.
    """
    annotations, association = _annotations(source), _association(source)
    lists = {
        "vocabulary": sorted({*association, *chain.from_iterable(association.values())}),
        "safe_words": source.text(BESIDE[2]).splitlines(),
    }
    row = partial(_row, annotations, association, lists)
    for place, record in source.records(_query_file(source)):
        yield place, made(row, record)


def _annotations(source: Source) -> list[Mapping[str, Any]]:
    read = source.document(BESIDE[0])
    if not isinstance(read, list) or not all(isinstance(one, Mapping) for one in read):
        raise UserError(f"`{BESIDE[0]}` of `{source.path}` is {shown(read)}, expected AMBER's list of annotations")
    return read


def _association(source: Source) -> dict[str, list[str]]:
    read = source.document(BESIDE[1])
    if not isinstance(read, dict) or not all(_is_texts(words) for words in read.values()):
        raise UserError(
            f"`{BESIDE[1]}` of `{source.path}` is {shown(read)}, expected an object that maps words to lists of words"
        )
    return read


def _is_texts(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def _query_file(source: Source) -> str | None:
    if not source.path.is_dir():
        return None
    return f"query/{ALL}" if (source.path / "query" / ALL).exists() else ALL


def _row(
    annotations: Sequence[Mapping[str, Any]],
    association: Mapping[str, list[str]],
    lists: Mapping[str, list[str]],
    record: Mapping[str, Any],
) -> Row:
    number = record["id"]
    if not isinstance(number, int) or not 1 <= number <= len(annotations):
        raise RowError(
            f"`id` is {shown(number)}, expected a number from 1 to {len(annotations)}, as in `annotations.json`"
        )
    annotation = annotations[number - 1]
    if annotation["id"] != number:
        raise RowError(f"annotation {number} has `id` {shown(annotation['id'])}, expected the official order")
    row = {
        "id": str(number),
        "image": record["image"],
        "question": record["query"],
        "split": "test",
        "type": annotation["type"],
        "image_file": record["image"],
    }
    if annotation["type"] != GENERATIVE:
        return {**row, "task": "existence", "answer": annotation["truth"]}
    for key in ("truth", "hallu"):
        if not _is_texts(annotation[key]):
            raise RowError(f"`{key}` of annotation {number} is {shown(annotation[key])}, expected a list of words")
    named = [*annotation["truth"], *annotation["hallu"]]
    if unknown := [word for word in named if word not in association]:
        raise RowError(f"`{unknown[0]}` of annotation {number} is not in `{BESIDE[1]}`")
    return {
        **row,
        "task": "open",
        "truth": annotation["truth"],
        "hallu": annotation["hallu"],
        "association": {word: association[word] for word in named},
        **lists,
    }


def _published(source: Source) -> Mapping[str, int]:
    name = ALL if source.path.is_dir() else source.path.name
    return {"test": PUBLISHED[name]} if name in PUBLISHED else {}


IMPORTER = Importer("amber", rows, beside=BESIDE, counts=_published)
