"""Images and questions that training data shares with the data of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

TRAINING = "train"
"""The split that is compared first; others are compared in the order of the data."""


class Overlap(NamedTuple):
    """How much of a benchmark's data is also in the training data."""

    images: int
    """Distinct images of the benchmark that are also in the training data."""
    of_images: int
    """Distinct images of the benchmark."""
    questions: int
    """Distinct questions of the benchmark that training asks about the same images."""
    of_questions: int
    """Distinct questions of the benchmark. The same text about other images is another question."""


def overlap(training: Iterable[Mapping[str, Any]], benchmark: Iterable[Mapping[str, Any]]) -> Overlap:
    """Compares rows of `examples` tables by `question` and `image_sha256`.

    Images are equal if their files are: a resized or newly encoded copy is another image. Questions
    are equal up to case and white space; those without an image count only as questions.
    """
    (seen, asked), (images, questions) = _known(training), _known(benchmark)
    return Overlap(len(images & seen), len(images), len(questions & asked), len(questions))


def overlaps_of_splits(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, Overlap]]:
    """Pairs of splits that share images or questions, with the overlap counted in the second split.

    `rows` are usable rows of an `examples` table, with `split` besides the columns of `overlap`.
    """
    by_split: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    for one, other in combinations(sorted(by_split, key=lambda split: split != TRAINING), 2):
        found = overlap(by_split[one], by_split[other])
        if found.images or found.questions:
            yield one, other, found


def _known(rows: Iterable[Mapping[str, Any]]) -> tuple[set[str], set[tuple[str, ...]]]:
    """Digests of the images, and questions with the digests of theirs."""
    images: set[str] = set()
    questions: set[tuple[str, ...]] = set()
    for row in rows:
        images.update(row["image_sha256"])
        questions.add((" ".join(row["question"].split()).casefold(), *row["image_sha256"]))
    return images, questions
