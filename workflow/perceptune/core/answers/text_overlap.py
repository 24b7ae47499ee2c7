"""How much of a page's text was read: BLEU, and METEOR where NLTK and its WordNet are at hand."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from perceptune.core.answers.nouns import MissingLanguageError

CHINESE = re.compile("[\u4e00-\u9fa5]")
WORDNET = "corpora/wordnet"
ORDER = 4
"""Longest n-gram of BLEU."""

Similarity = Callable[[Sequence[str], Sequence[str]], float]
"""Of a truth and an answer, both as tokens, in this order."""


def bleu(truth: Sequence[str], answer: Sequence[str]) -> float:
    """BLEU-4 of one text with equal weights, without smoothing: 0 where no n-gram of some length is shared.

    NLTK's `sentence_bleu`, which gives some 1e-78 in place of 0. Shared n-grams count as often as the truth has them; an
    answer that is shorter than the truth is multiplied by exp(1 - truth / answer).
    """
    logs = 0.0
    for n in range(1, ORDER + 1):
        said, true = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (answer, truth))
        shared = (said & true).total()
        if not shared:
            return 0.0
        logs += math.log(shared / said.total()) / ORDER
    return math.exp(logs + min(0.0, 1 - len(truth) / len(answer)))


def meteor(resources: Path | None) -> Similarity:
    """NLTK's METEOR (alpha 0.9, beta 3, gamma 0.5) with exact, stemmed and WordNet matches; `nltk_data` of `resources` has
    the WordNet.

    Raises `MissingLanguageError`.
    """
    if resources is None:
        raise MissingLanguageError("key `resources` of the reward block is not set, expected a folder with `nltk_data`")
    try:
        import nltk
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
        from nltk.translate.meteor_score import meteor_score
    except ModuleNotFoundError:
        raise MissingLanguageError("package `nltk` is not installed, expected what `make language` installs") from None
    folder = resources / "nltk_data"
    nltk.data.path[:] = [str(folder)]  # nothing is looked for elsewhere on the machine
    try:
        place = nltk.data.find(f"{WORDNET}/")  # unpacked or not
    except LookupError:
        raise MissingLanguageError(f"`{folder / WORDNET}` does not exist, expected NLTK's `wordnet`") from None
    with warnings.catch_warnings(action="ignore"):  # it says that it knows English only
        wordnet = WordNetCorpusReader(place, None)
    return lambda truth, answer: float(meteor_score([list(truth)], list(answer), wordnet=wordnet))
