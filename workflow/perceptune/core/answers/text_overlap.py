"""Overlap of an answer with a page's text: BLEU, and METEOR if NLTK and its WordNet are available."""

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
"""Takes the tokens of the ground truth and of the answer, in this order."""


def bleu(truth: Sequence[str], answer: Sequence[str]) -> float:
    """BLEU-4 of one text, equal weights, no smoothing: 0 if no n-gram of some length is shared.

    Equals NLTK's `sentence_bleu`, which returns about 1e-78 instead of 0. Shared n-grams are
    clipped to their count in the ground truth; a shorter answer is penalised by exp(1 - len(truth)
    / len(answer)).
    """
    logs = 0.0
    for n in range(1, ORDER + 1):
        answered, true = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (answer, truth))
        shared = (answered & true).total()
        if not shared:
            return 0.0
        logs += math.log(shared / answered.total()) / ORDER
    return math.exp(logs + min(0.0, 1 - len(truth) / len(answer)))


def meteor(resources: Path | None) -> Similarity:
    """NLTK's METEOR (alpha 0.9, beta 3, gamma 0.5) with exact, stemmed and WordNet matches.

    WordNet is read from `nltk_data` in `resources`. Raises `MissingLanguageError`.
    """
    if resources is None:
        raise MissingLanguageError("key `resources` of the reward block is not set, expected a folder with `nltk_data`")
    try:
        import nltk
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
        from nltk.translate.meteor_score import meteor_score
    except ModuleNotFoundError:
        raise MissingLanguageError("package `nltk` is not installed, run `make language`") from None
    folder = resources / "nltk_data"
    nltk.data.path[:] = [str(folder)]  # no other place on the machine is searched
    try:
        place = nltk.data.find(f"{WORDNET}/")  # unpacked or not
    except LookupError:
        raise MissingLanguageError(f"`{folder / WORDNET}` does not exist, expected NLTK's `wordnet`") from None
    with warnings.catch_warnings(action="ignore"):  # it warns that it supports only English
        wordnet = WordNetCorpusReader(place, None)
    return lambda truth, answer: float(meteor_score([list(truth)], list(answer), wordnet=wordnet))
