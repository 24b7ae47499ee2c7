"""A judge's labels of the tokens of an answer, and agreement of a selection of tokens with them.

The judge lists the words that state what the image shows. A token is labelled if it has a character
other than white space of a listed phrase. We know of no published prompt for CPPO's tokens, so this
one is ours. The judge does not see the image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from perceptune.core.benchmarks.benchmark import filled, summed
from perceptune.core.benchmarks.bootstrap import bounds, resampled_totals
from perceptune.core.comparisons.agreement import agreement, kappa
from perceptune.core.rewards.metrics import known_ratio

PROMPT = """Below are a question about an image and an answer. You cannot see the image.

Question:
{question}

Answer:
{answer}

Which words of the answer state what is seen in the image: objects, attributes, numbers or text that are read off it, positions \
and relations? Leave out reasoning, calculation, facts that are known without the image, and words that only connect the others.

Reply with a JSON list of these words or short phrases and nothing else. Copy each one exactly from the answer, in the order of \
the answer, once for every time that it is meant. Reply with [] if there is none. Example: ["two red cubes", "left of"]"""
MAX_TOKENS = 2048
PARTS = ("selected", "random", "difference")
LABELS, CHOICES = ("perception", "other"), ("selected", "not selected")
NO_LIST = "the verdict has no JSON list of texts"
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_LETTER = rf"[^\W{_UNSPACED}]"
"""A letter or digit of a script whose words are separated by spaces."""
_END = re.compile(r"</?\w+>|<\|\w+\|>")
Interval = tuple[float, float, float]


class Labelled(NamedTuple):
    """An answer's tokens with the judge's labels."""

    unit: str
    """The question. Intervals resample questions with all their answers."""
    labels: Sequence[bool]
    selected: Sequence[bool]
    random: Sequence[bool]


def shown_text(tokens: Sequence[str]) -> str:
    """The answer that the judge is shown: without a special token at its end, such as `</s>`."""
    end = bool(tokens) and _END.fullmatch(tokens[-1].strip()) is not None
    return "".join(tokens[:-1] if end else tokens)


def messages(question: str, tokens: Sequence[str]) -> list[dict[str, str]]:
    """What the judge is asked about one answer."""
    text = filled(PROMPT, {"question": question, "answer": shown_text(tokens).strip()})
    return [{"role": "user", "content": text}]


def labels_of(verdict: str, tokens: Sequence[str]) -> list[bool]:
    """Whether each token has a part of a phrase that the verdict lists.

    A phrase stands for its first occurrence after the previous phrase or, if there is none, its first
    occurrence in the answer. It does not begin or end within a word; case and the kind of white space
    do not matter. A token without text is part of a character that a later token completes, and gets
    that token's label. Raises `ValueError`, with the reason, if there is no list or if a phrase does
    not occur.
    """
    answer = shown_text(tokens)
    marked, after = np.zeros(sum(map(len, tokens)), dtype=bool), 0
    for phrase in _phrases(verdict):
        pattern = _pattern(phrase)
        found = pattern.search(answer, after) or pattern.search(answer)
        if found is None:
            raise ValueError(f"`{phrase}` is not in the answer")
        marked[found.start() : found.end()] = True
        after = found.end()
    marked &= np.array([not one.isspace() for one in "".join(tokens)], dtype=bool)
    ends = list(accumulate(map(len, tokens)))
    labels = [bool(marked[end - len(token) : end].any()) for token, end in zip(tokens, ends, strict=True)]
    for place in range(len(tokens) - 2, -1, -1):
        if not tokens[place]:
            labels[place] = labels[place + 1]
    return labels


def _phrases(verdict: str) -> list[str]:
    """The texts of the first JSON list of texts in a verdict. Raises `ValueError` if there is none."""
    for start in (found.start() for found in re.finditer(r"\[", verdict)):
        try:
            read, _ = json.JSONDecoder().raw_decode(verdict, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(read, list) and all(isinstance(one, str) for one in read):
            return [one for one in read if one.strip()]
    raise ValueError(NO_LIST)


def _pattern(phrase: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, phrase.split()))
    first, last = phrase.strip()[0], phrase.strip()[-1]
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, first) else ""
    behind = rf"(?!{_LETTER})" if re.match(_LETTER, last) else ""
    return re.compile(f"{before}{words}{behind}", re.IGNORECASE)


def table_of(labels: Sequence[bool], chosen: Sequence[bool]) -> np.ndarray:
    """Numbers of tokens (2, 2): labelled or not, in rows, by chosen or not, in columns."""
    one, other = np.asarray(labels, dtype=bool), np.asarray(chosen, dtype=bool)
    cells = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
    return np.array(cells, dtype=float)


def _precision(table: np.ndarray) -> np.ndarray:
    return known_ratio(table[..., 0, 0], table[..., 0].sum(axis=-1))


def _recall(table: np.ndarray) -> np.ndarray:
    return known_ratio(table[..., 0, 0], table[..., 0, :].sum(axis=-1))


def _f1(table: np.ndarray) -> np.ndarray:
    return known_ratio(2 * table[..., 0, 0], table[..., 0].sum(axis=-1) + table[..., 0, :].sum(axis=-1))


MEASURES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "precision": _precision, "recall": _recall, "f1": _f1, "agreement": agreement, "kappa": kappa,
}  # fmt: skip
"""Of tables as in `table_of`, shape (..., 2, 2): shape (...), NaN where a number is not defined."""


def numbers(labels: Sequence[bool], chosen: Sequence[bool]) -> dict[str, float]:
    """Every measure of one answer; NaN where it is not defined."""
    table = table_of(labels, chosen)
    return {name: float(measure(table)) for name, measure in MEASURES.items()}


def measured(answers: Sequence[Labelled], *, resamples: int, seed: int) -> dict[str, dict[str, Interval]]:
    """Part to measure to (value, low, high), over the tokens of all answers.

    The parts are the selection, the random selection of equal size, and the difference between the
    two, whose interval is paired: both are measured on the same bootstrap samples of questions. NaN
    where a number is not defined, and for the limits if there is a single question.
    """
    if not answers:
        return {part: dict.fromkeys(MEASURES, (np.nan,) * 3) for part in PARTS}
    tables = {
        "selected": np.array([table_of(one.labels, one.selected) for one in answers]),
        "random": np.array([table_of(one.labels, one.random) for one in answers]),
    }
    units = [one.unit for one in answers]
    columns = summed(
        units, {f"{part} {i} {j}": of[:, i, j].tolist() for part, of in tables.items() for i in (0, 1) for j in (0, 1)}
    )
    (drawn,) = resampled_totals([columns], resamples=resamples, seed=seed)
    several = len(set(units)) > 1
    found: dict[str, dict[str, Interval]] = {part: {} for part in PARTS}
    for name, measure in MEASURES.items():
        values = {part: float(measure(of.sum(axis=0))) for part, of in tables.items()}
        draws = {part: measure(_summed(drawn, part)) if several else np.full(1, np.nan) for part in tables}
        values["difference"] = values["selected"] - values["random"]
        draws["difference"] = draws["selected"] - draws["random"]
        for part in PARTS:
            found[part][name] = (values[part], *bounds(draws[part]))
    return found


def _summed(drawn: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    """Tables (resamples, 2, 2) of the cells of one part."""
    cells = [[drawn[f"{part} {i} {j}"].sum(axis=-1) for j in (0, 1)] for i in (0, 1)]
    return np.moveaxis(np.array(cells), (0, 1), (-2, -1))
