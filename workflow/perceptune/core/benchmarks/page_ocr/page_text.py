"""How much of a page's text was transcribed (dense OCR, as in Fox and GOT)."""

from __future__ import annotations

import sys

import numpy as np

from perceptune.core.answers.nouns import MissingLanguageError
from perceptune.core.answers.text_overlap import CHINESE, Similarity, bleu, meteor
from perceptune.core.rewards.edit_distance import NED, TOKEN_METRICS, distances, token_overlap
from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores

OF_TOKENS = ("token_precision", "token_recall", "token_f1", "bleu", "bleu_fox", "meteor", "meteor_fox")


def page_text(answers: Answers) -> Scores:
    """Reward: 1 - `ned`, the character-level Levenshtein distance divided by the longer length, which
    is 0 for two empty texts.

    Components: `ned`; `token_precision` (share of the answer's tokens in the ground truth),
    `token_recall` and `token_f1` on sets of whitespace-separated tokens; `bleu` and `meteor` of the
    answer against the ground truth; `bleu_fox` and `meteor_fox`, the same with the two swapped.
    `meteor` and `meteor_fox` are NaN without the language resources. All token-based components are
    NaN for Chinese pages, which Fox's script segments with jieba.
    """
    targets = [target or "" for target in answers.targets]
    texts = list(answers.texts)
    ned = distances(texts, targets)
    similar = _meteor(answers)
    found = [_of_tokens(text, target, similar) for text, target in zip(texts, targets, strict=True)]
    columns = np.array(found, dtype=float).reshape(-1, len(OF_TOKENS)).T
    components = {"ned": ned, **dict(zip(OF_TOKENS, columns, strict=True))}
    return Scores(1.0 - ned, [{"text": text} for text in texts], components, [None] * len(texts))


def _meteor(answers: Answers) -> Similarity:
    try:
        return meteor(answers.resources)
    except MissingLanguageError as missing:
        print(f"METEOR is not measured: {missing}", file=sys.stderr)
        return lambda truth, answer: float("nan")


def _of_tokens(text: str, target: str, similar: Similarity) -> tuple[float, ...]:
    if CHINESE.search(target):
        return (float("nan"),) * len(OF_TOKENS)
    answer, true = text.split(), target.split()
    overlap = token_overlap(text, target)
    return (*overlap, bleu(true, answer), bleu(answer, true), similar(true, answer), similar(answer, true))


REWARD = Reward(
    name="page_text",
    summary="1 - the normalised edit distance between the answer and the text of the page",
    score=page_text,
    components=("ned", *OF_TOKENS),
    metrics={**NED, **TOKEN_METRICS, "bleu": RewardMetric(mean("bleu"), "BLEU", percent=False)},
    needs="answer",
)
