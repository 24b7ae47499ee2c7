"""Which objects named in an answer are in the image, according to AMBER's word lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from operator import eq
from typing import Any

import numpy as np

from perceptune.core.answers.nouns import MissingLanguageError, english
from perceptune.core.rewards.metrics import Columns, known_ratio
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores


@dataclass(frozen=True)
class Mentions:
    """Counts of one answer."""

    nouns: int
    """Nouns of AMBER's vocabulary, counting repetitions."""
    hallucinated: int
    """Nouns whose object is not in the image."""
    truths: int
    """Annotated objects of the image."""
    covered: int
    """Annotated objects that the answer names."""
    guesses: int
    """Annotated objects that people would expect but that are not in the image."""
    guessed: int
    """Expected but absent objects that the answer names."""
    guessing: int
    """Hallucinated nouns that name an expected but absent object."""


def amber_nouns(answers: Answers) -> Scores:
    """Reward: 1 - CHAIR, the share of the objects named in the answer that are in the image; 0 if
    it names none.

    Components: the counts of `Mentions`, all NaN if the language resources are missing. The source
    must have the columns that AMBER's importer writes.
    """
    count = len(answers.texts)
    try:
        language = english(answers.resources)
    except MissingLanguageError as missing:
        print(f"AMBER's descriptions are not measured: {missing}", file=sys.stderr)
        unknown = {field.name: np.full(count, np.nan) for field in fields(Mentions)}
        return Scores(np.zeros(count), [None] * count, unknown, [f"not measured: {missing}"] * count)
    named = [language.nouns(text) for text in answers.texts]
    found = [mentions(n, source, language.similar) for n, source in zip(named, answers.sources, strict=True)]
    components = {
        field.name: np.array([asdict(one)[field.name] for one in found], dtype=float) for field in fields(Mentions)
    }
    kept = [_known(n, source) for n, source in zip(named, answers.sources, strict=True)]
    rewards = np.array([1 - one.hallucinated / one.nouns if one.nouns else 0.0 for one in found])
    reasons = [None if nouns else "no object of AMBER's vocabulary" for nouns in kept]
    return Scores(rewards, [{"nouns": nouns} if nouns else None for nouns in kept], components, reasons)


def mentions(nouns: Sequence[str], source: Mapping[str, Any], similar: Callable[[str, str], bool]) -> Mentions:
    """The counts for the nouns of one answer, as in AMBER's `inference.py`.

    A noun is hallucinated if it neither equals nor resembles any word in the image's lists. Words
    that `relation.json` relates to an annotated object stand for it and are matched before the
    annotated words, so a noun covers only the first object that it matches.
    """
    truths = list(_standing_for(source["truth"], source["association"]))
    guesses = list(_standing_for(source["hallu"], source["association"]))
    covered: set[int] = set()
    guessed: set[int] = set()
    hallucinated = guessing = 0
    known = _known(nouns, source)
    for noun in known:
        if noun in source["safe_words"]:
            continue
        place = _first(truths, partial(eq, noun))
        if place is not None:
            covered.add(place)
            continue
        matches = (_first(guesses, partial(eq, noun)), _first(guesses, partial(similar, noun)))
        expected = {match for match in matches if match is not None}
        guessed |= expected
        place = _first(truths, partial(similar, noun))
        if place is not None:
            covered.add(place)
            continue
        hallucinated += 1
        guessing += bool(expected)
    return Mentions(
        nouns=len(known),
        hallucinated=hallucinated,
        truths=len(source["truth"]),
        covered=len(covered),
        guesses=len(source["hallu"]),
        guessed=len(guessed),
        guessing=guessing,
    )


def _known(nouns: Sequence[str], source: Mapping[str, Any]) -> list[str]:
    vocabulary = set(source["vocabulary"])
    return [noun for noun in nouns if noun in vocabulary]


def _standing_for(words: Sequence[str], association: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, int]]:
    """Words, each with the index of the annotated object that it stands for."""
    for place, word in enumerate(words):
        yield from ((related, place) for related in association[word])
    yield from ((word, place) for place, word in enumerate(words))


def _first(words: Sequence[tuple[str, int]], fits: Callable[[str], bool]) -> int | None:
    return next((place for word, place in words if fits(word)), None)


def _chair(columns: Columns) -> np.ndarray:
    """NaN if no object is named or the language resources are missing."""
    return known_ratio(columns["hallucinated"].sum(axis=-1), columns["nouns"].sum(axis=-1))


REWARD = Reward(
    name="amber_nouns",
    summary="1 - CHAIR: the share of the objects named in an answer that are in the image",
    score=amber_nouns,
    components=[field.name for field in fields(Mentions)],
    metrics={"chair": RewardMetric(_chair, "CHAIR: objects named that are not there", lower_is_better=True)},
)
