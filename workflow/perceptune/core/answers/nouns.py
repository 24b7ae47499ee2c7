"""Nouns of English text, and words that mean nearly the same: by NLTK and spaCy, with data that the user brings.

The folder of resources has `nltk_data`, as NLTK's downloader makes it, and `en_core_web_lg`, the model's own folder with its
`config.cfg` (docs/benchmarks.md). Nothing is looked for elsewhere on the machine, so that the folder's digest says what was used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SIMILAR = 0.8
"""Words whose vectors have a larger cosine mean the same (AMBER)."""
NLTK = {
    "tokenizers/punkt_tab": "punkt_tab",
    "taggers/averaged_perceptron_tagger_eng": "averaged_perceptron_tagger_eng",
    "corpora/wordnet": "wordnet",
}
"""NLTK's data by place and name."""
MODEL = "en_core_web_lg"
NEEDS = (
    "the packages of envs/language.txt, and a folder `resources` of the reward block with `nltk_data` "
    f"({', '.join(NLTK.values())}) and `{MODEL}`"
)


class MissingLanguageError(Exception):
    """What is missing, where it is looked for, and how to get it."""


@dataclass(frozen=True)
class Language:
    """What scoring asks of English."""

    nouns: Callable[[str], list[str]]
    """The nouns of a text in its order, in the singular; repeated ones are repeated, capitals stay."""
    similar: Callable[[str, str], bool]
    """Whether two words mean nearly the same."""


@cache
def english(resources: Path | None) -> Language:
    """NLTK's tokens, tags and lemmas, and the vectors of spaCy's `en_core_web_lg`; raises `MissingLanguageError`."""
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
        raise MissingLanguageError("package `nltk` is not installed, expected what `make language` installs") from None
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
        raise MissingLanguageError("package `spacy` is not installed, expected what `make language` installs") from None
    if not (folder / "config.cfg").is_file():
        raise MissingLanguageError(f"`{folder / 'config.cfg'}` does not exist, expected spaCy's model `{MODEL}`")
    model = spacy.load(folder)

    @cache
    def meaning(word: str) -> Any:
        return model(word)

    @cache
    def similar(one: str, other: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a word without a vector is similar to itself only
            return bool(meaning(one).similarity(meaning(other)) > SIMILAR)

    return similar
