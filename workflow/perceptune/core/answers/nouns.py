"""Nouns and word similarity of English text, by NLTK and spaCy with the user's data.

The resources folder contains `nltk_data`, as NLTK's downloader creates it, and `en_core_web_lg`,
the model's folder with its `config.cfg` (docs/benchmarks.md). No other place on the machine is
searched, so the folder's digest identifies the data that was used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SIMILAR = 0.8
"""Words are similar if the cosine of their vectors exceeds this (AMBER)."""
NLTK = {
    "tokenizers/punkt_tab": "punkt_tab",
    "taggers/averaged_perceptron_tagger_eng": "averaged_perceptron_tagger_eng",
    "corpora/wordnet": "wordnet",
}
"""NLTK's data: path to name."""
MODEL = "en_core_web_lg"
NEEDS = (
    "the packages of envs/language.txt, and a folder `resources` of the reward block with `nltk_data` "
    f"({', '.join(NLTK.values())}) and `{MODEL}`"
)


class MissingLanguageError(Exception):
    """Missing language data or package; the message says where it is expected."""


@dataclass(frozen=True)
class Language:
    """The English language functions that scoring needs."""

    nouns: Callable[[str], list[str]]
    """The nouns of a text in order, in the singular, with repetitions and capitals."""
    similar: Callable[[str, str], bool]
    """Whether two words have nearly the same meaning."""


@cache
def english(resources: Path | None) -> Language:
    """NLTK's tokens, tags and lemmas, and the vectors of spaCy's `en_core_web_lg`.

    Raises `MissingLanguageError`.
    """
    if resources is None:
        raise MissingLanguageError(
            "key `resources` of the reward block is not set, expected a folder with language data"
        )
    return Language(_nouns(resources / "nltk_data"), _similar(resources / MODEL))


def _nouns(folder: Path) -> Callable[[str], list[str]]:
    try:
        import nltk
        from nltk.stem import WordNetLemmatizer
    except ModuleNotFoundError:
        raise MissingLanguageError("package `nltk` is not installed, run `make language`") from None
    for place, name in NLTK.items():
        if not ((folder / place).is_dir() or (folder / f"{place}.zip").is_file()):
            raise MissingLanguageError(f"`{folder / place}` does not exist, expected NLTK's `{name}`")
    nltk.data.path[:] = [str(folder)]
    lemmatizer = WordNetLemmatizer()

    def nouns(text: str) -> list[str]:
        tagged = nltk.pos_tag(nltk.word_tokenize(text))
        return [lemmatizer.lemmatize(word) for word, tag in tagged if tag.startswith("NN")]

    return nouns


def _similar(folder: Path) -> Callable[[str, str], bool]:
    try:
        import spacy
    except ModuleNotFoundError:
        raise MissingLanguageError("package `spacy` is not installed, run `make language`") from None
    if not (folder / "config.cfg").is_file():
        raise MissingLanguageError(f"`{folder / 'config.cfg'}` does not exist, expected spaCy's model `{MODEL}`")
    model = spacy.load(folder)

    @cache
    def meaning(word: str) -> Any:
        return model(word)

    @cache
    def similar(one: str, other: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a word without a vector is similar only to itself
            return bool(meaning(one).similarity(meaning(other)) > SIMILAR)

    return similar
