"""Images and questions that training data share with a benchmark."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
from perceptune.core.data import leakage as module
from perceptune.core.data.leakage import Shared, leakage
from perceptune.core.data.perceptual_hash import BITS_BYTES, MOST_BITS, MOST_LEVELS


def row(question: str, *images: str, name: str = "e", hashes: dict[str, bytes] | None = None) -> dict[str, Any]:
    known = hashes or {}
    return {
        "example_id": name,
        "question": question,
        "image_sha256": list(images),
        "image_hashes": [known.get(image, b"") for image in images],
    }


def counts(training: list[Any], benchmark: list[Any]) -> tuple[int, ...]:
    return leakage(iter(training), iter(benchmark))[:6]


@pytest.mark.parametrize(
    ("training", "benchmark", "expected"),
    [
        ([row("a?", "1")], [row("a?", "2")], (1, 0, 1, 0)),  # the same text about another image
        ([row("a?", "1")], [row("b?", "1")], (1, 1, 1, 0)),
        ([row("a?", "1")], [row("a?", "1")], (1, 1, 1, 1)),
        ([row("Is it  A?\n", "1")], [row("is it a?", "1")], (1, 1, 1, 1)),
        ([row("a?", "1"), row("b?", "1")], [row("a?", "1")] * 3 + [row("c?", "2")], (2, 1, 2, 1)),  # counted once
        ([row("a?", "1", "2")], [row("a?", "2", "1")], (2, 2, 1, 0)),  # in another order: another question
        ([row("a?", "1", "2")], [row("a?", "2", "3")], (2, 1, 1, 0)),
        ([row("a?")], [row("a?"), row("b?")], (0, 0, 2, 1)),  # questions without an image
        ([], [row("a?", "1")], (1, 0, 1, 0)),
        ([row("a?", "1")], [], (0, 0, 0, 0)),
    ],
)
def test_the_same_files(training: list[Any], benchmark: list[Any], expected: tuple[int, ...]) -> None:
    images, same_images, questions, same_questions = expected
    assert counts(training, benchmark) == (images, same_images, 0, questions, same_questions, 0)


BASE = bytes(range(80))
NEAR = bytes([BASE[0] ^ 255, BASE[1] ^ 255, BASE[2] ^ 255, *BASE[3:]])  # 24 bits differ
FAR = bytes([NEAR[0], NEAR[1], NEAR[2], BASE[3] ^ 1, *BASE[4:]])  # 25 bits
TINTED, PAINTED = (bytes([*BASE[:BITS_BYTES], BASE[BITS_BYTES] + more, *BASE[BITS_BYTES + 1 :]]) for more in (24, 25))
HASHES = {"base": BASE, "near": NEAR, "far": FAR, "tinted": TINTED, "painted": PAINTED, "other": bytes(80)}


def hashed(question: str, *images: str) -> dict[str, Any]:
    return row(question, *images, hashes=HASHES)


@pytest.mark.parametrize(
    ("training", "benchmark", "images", "questions"),
    [
        ([hashed("a?", "base")], [hashed("a?", "near")], 1, 1),
        ([hashed("a?", "base")], [hashed("a?", "tinted")], 1, 1),
        ([hashed("a?", "base")], [hashed("a?", "far")], 0, 0),
        ([hashed("a?", "base")], [hashed("a?", "painted")], 0, 0),
        ([hashed("a?", "base")], [hashed("b?", "near")], 1, 0),
        ([hashed("a?", "base")], [hashed("a?", "near"), hashed("b?", "near"), hashed("c?", "other")], 1, 1),
        ([hashed("b?", "base"), hashed("a?", "other")], [hashed("a?", "near")], 1, 0),  # about another image
        ([hashed("a?", "base", "x")], [hashed("a?", "near", "x")], 1, 1),
        ([hashed("a?", "x", "base")], [hashed("a?", "x", "near")], 1, 1),  # the first image without a hash
        ([hashed("a?", "base", "base")], [hashed("a?", "near", "tinted")], 2, 1),
        ([hashed("a?", "base", "x")], [hashed("a?", "near", "y")], 1, 0),
        ([hashed("a?", "base")], [hashed("a?", "near", "near")], 1, 0),
        ([row("a?", "1")], [row("a?", "2")], 0, 0),  # two images without a hash
        ([hashed("a?", "base"), hashed("a?", "near")], [hashed("a?", "near")], 0, 0),  # the same, so not similar
        ([hashed("a?", "base"), hashed("b?", "near")], [hashed("a?", "near")], 0, 1),
    ],
)
def test_near_duplicates(training: list[Any], benchmark: list[Any], images: int, questions: int) -> None:
    assert [counts(training, benchmark)[place] for place in (2, 5)] == [images, questions]


def test_the_first_examples_are_named() -> None:
    training = [row("a?", "1", name="t1"), row("b?", "base", name="t2", hashes=HASHES)]
    benchmark = [
        row("b?", "near", name="b1", hashes=HASHES),
        row("a?", "1", name="b2"),
        row("c?", "1", name="b3"),
    ]
    assert leakage(training, benchmark).examples == [
        Shared("same question", "t1", "b2"),
        Shared("same image", "t1", "b2"),
        Shared("similar question", "t2", "b1"),
    ]
    assert leakage(training, benchmark[:1]).examples[1] == Shared("similar image", "t2", "b1")


def copies(random_: random.Random, known: list[bytes]) -> bytes:
    """A hash close to a random known one; the distances between two of these lie around both limits."""
    bits = np.unpackbits(np.frombuffer(random_.choice(known)[:BITS_BYTES], np.uint8))
    bits[random_.sample(range(256), random_.randint(MOST_BITS // 2 - 4, MOST_BITS // 2 + 2))] ^= 1
    colours = np.frombuffer(known[0][BITS_BYTES:], np.uint8).copy()
    colours[random_.randrange(48)] += random_.choice([0, 0, MOST_LEVELS - 1, MOST_LEVELS, MOST_LEVELS + 1])
    return np.packbits(bits).tobytes() + colours.tobytes()


def test_the_counts_agree_with_a_loop_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also across the parts in which images are compared."""
    monkeypatch.setattr(module, "ROWS", 7)
    monkeypatch.setattr(module, "COLUMNS", 11)
    draw = random.Random(5)
    base = [draw.randbytes(BITS_BYTES) + bytes([100] * 48) for _ in range(8)]
    hashes = {f"i{n}": b"" if n % 9 == 0 else copies(draw, base) for n in range(150)}
    texts = ["a?", "b?", "c?"]

    def rows(names: range) -> list[dict[str, Any]]:
        made = []
        for number in range(120):
            images = [f"i{draw.choice(names)}" for _ in range(draw.randint(0, 2))]
            made.append(row(draw.choice(texts), *images, name=f"e{number}", hashes=hashes))
        return made

    training, benchmark = rows(range(100)), rows(range(80, 150))

    def near(one: str, other: str) -> bool:
        first, second = hashes[one], hashes[other]
        if not first or not second:
            return False
        bits = sum((x ^ y).bit_count() for x, y in zip(first[:BITS_BYTES], second[:BITS_BYTES], strict=True))
        levels = max(abs(x - y) for x, y in zip(first[BITS_BYTES:], second[BITS_BYTES:], strict=True))
        return bits <= 24 and levels <= 24

    def distinct(rows: list[dict[str, Any]]) -> tuple[set[str], set[tuple[str, ...]]]:
        return {i for r in rows for i in r["image_sha256"]}, {(r["question"], *r["image_sha256"]) for r in rows}

    (seen, asked), (images, questions) = distinct(training), distinct(benchmark)
    similar = {i for i in images - seen if any(near(i, j) for j in seen)}
    alike = {
        q
        for q, other in itertools.product(questions - asked, asked)
        if len(q) == len(other) > 1 and q[0] == other[0]
        and all(x == y or near(x, y) for x, y in zip(q[1:], other[1:], strict=True))
    }  # fmt: skip
    expected = (len(images), len(images & seen), len(similar), len(questions), len(questions & asked), len(alike))
    assert counts(training, benchmark) == expected
    assert all(expected)
