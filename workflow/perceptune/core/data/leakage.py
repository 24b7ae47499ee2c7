"""Images and questions that training data share with the data of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from perceptune.core.data.perceptual_hash import Hashes

SHOWN = 3
"""Number of examples of what is shared."""
ROWS, COLUMNS = 64, 4096
"""Images of the benchmark and of the training data that are compared at once; needs 3 MB."""


class Shared(NamedTuple):
    """Two examples that share an image or a question."""

    kind: str
    """`same question`, `same image`, `similar question` or `similar image`."""
    training_id: str
    benchmark_id: str


class Leakage(NamedTuple):
    """How much of a benchmark's data is also in the training data."""

    images: int
    """Distinct images of the benchmark."""
    same_images: int
    """Images whose file is also in the training data."""
    similar_images: int
    """Other images with a near duplicate in the training data."""
    questions: int
    """Distinct questions of the benchmark. The same text about other images is another question."""
    same_questions: int
    """Questions that training also asks, about the same images."""
    similar_questions: int
    """Other questions that training also asks, about the same images or near duplicates of them."""
    examples: list[Shared]
    """The first `SHOWN`: questions before images, equal ones before similar ones."""


def leakage(training: Iterable[Mapping[str, Any]], benchmark: Iterable[Mapping[str, Any]]) -> Leakage:
    """Compares rows of `examples` tables by `question`, `image_sha256` and `image_hashes`.

    Questions are equal up to case and white space; those without an image count only as questions.
    Images without a perceptual hash have no near duplicates.
    """
    seen, asked = _Data(training), _Data(benchmark)
    same_images = {image: seen.images[image] for image in asked.images if image in seen.images}
    same_questions = {question: seen.questions[question] for question in asked.questions if question in seen.questions}
    similar_images, similar_questions = _similar(seen, asked)
    found = {
        "same question": [(seen.questions[q], asked.questions[q]) for q in same_questions],
        "same image": [(seen.images[i], asked.images[i]) for i in same_images],
        "similar question": [(seen.questions[s], asked.questions[q]) for q, s in similar_questions.items()],
        "similar image": [(seen.images[s], asked.images[i]) for i, s in similar_images.items()],
    }
    shared = [Shared(kind, *ids) for kind, pairs in found.items() for ids in pairs[:SHOWN]]
    return Leakage(
        len(asked.images), len(same_images), len(similar_images),
        len(asked.questions), len(same_questions), len(similar_questions), shared[:SHOWN],
    )  # fmt: skip


Question = tuple[str, tuple[str, ...]]
"""A text and the digests of its images."""


class _Data:
    """Distinct images and questions, each with the id of the first example that has it."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.images: dict[str, str] = {}
        self.questions: dict[Question, str] = {}
        hashes: dict[str, bytes] = {}
        for row in rows:
            digests = tuple(row["image_sha256"])
            self.questions.setdefault((" ".join(row["question"].split()).casefold(), digests), row["example_id"])
            for digest, one in zip(digests, row["image_hashes"], strict=True):
                self.images.setdefault(digest, row["example_id"])
                if one:
                    hashes[digest] = one
        self.hashed = list(hashes)
        """Digests of the images with a hash."""
        self.place = {digest: place for place, digest in enumerate(hashes)}
        self.hashes = Hashes(list(hashes.values()))

    def by_image(self) -> dict[str, list[Question]]:
        """First image to the questions about it."""
        found: dict[str, list[Question]] = {}
        for question in self.questions:
            if question[1]:
                found.setdefault(question[1][0], []).append(question)
        return found


def _similar(seen: _Data, asked: _Data) -> tuple[dict[str, str], dict[Question, Question]]:
    """Images and questions of the benchmark to the first similar ones of the training data, without
    those that are equal."""
    questions = _SimilarQuestions(seen, asked)
    for image in asked.images:
        if image in seen.images:
            questions.match(image, [image])
    images: dict[str, str] = {}
    for image, others in _near(seen, asked):
        questions.match(image, others)
        if image not in seen.images:
            images.setdefault(image, others[0])
    return {i: images[i] for i in asked.images if i in images}, questions.found


def _near(seen: _Data, asked: _Data) -> Iterator[tuple[str, list[str]]]:
    """Images of the benchmark with near duplicates in the training data; an image comes several times
    if they lie in several parts of it."""
    for start in range(0, len(asked.hashes), ROWS):
        for first in range(0, len(seen.hashes), COLUMNS):
            mine, theirs = asked.hashes.near(start, start + ROWS, seen.hashes, first, first + COLUMNS)
            near: dict[int, list[str]] = {}
            for one, other in zip(mine.tolist(), theirs.tolist(), strict=True):
                near.setdefault(one, []).append(seen.hashed[other])
            yield from ((asked.hashed[one], others) for one, others in near.items())


class _SimilarQuestions:
    """Questions of the benchmark that training asks about similar images."""

    def __init__(self, seen: _Data, asked: _Data) -> None:
        self._seen, self._asked = seen, asked
        self._waiting = {
            image: [question for question in questions if question not in seen.questions]
            for image, questions in asked.by_image().items()
        }
        self._by_text: dict[str, dict[str, list[Question]]] = {}
        for image, questions in seen.by_image().items():
            for question in questions:
                self._by_text.setdefault(question[0], {}).setdefault(image, []).append(question)
        self.found: dict[Question, Question] = {}

    def match(self, image: str, others: Sequence[str]) -> None:
        """Looks for the benchmark's questions about `image` among those about `others`."""
        left, near = [], dict.fromkeys(others)
        for question in self._waiting.get(image, ()):
            known = self._by_text.get(question[0], {})
            fewer = near if len(near) < len(known) else known
            candidates = (one for other in fewer if other in near for one in known.get(other, ()))
            match = next((one for one in candidates if self._alike(question[1], one[1])), None)
            if match is None:
                left.append(question)
            else:
                self.found[question] = match
        if image in self._waiting:
            self._waiting[image] = left

    def _alike(self, images: Sequence[str], others: Sequence[str]) -> bool:
        """Whether all images after the first are equal or near duplicates."""
        if len(images) != len(others):
            return False
        return all(one == other or self._is_near(one, other) for one, other in zip(images[1:], others[1:], strict=True))

    def _is_near(self, image: str, other: str) -> bool:
        one, another = self._asked.place.get(image), self._seen.place.get(other)
        if one is None or another is None:
            return False
        return bool(len(self._asked.hashes.near(one, one + 1, self._seen.hashes, another, another + 1)[0]))
