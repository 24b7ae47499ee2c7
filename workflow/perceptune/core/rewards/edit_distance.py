"""One minus the normalised edit distance (PerPO, dense OCR)."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores, parsed_columns


def edit_distance(answers: Answers) -> Scores:
    """Reward: 1 - Levenshtein distance / longer length, on characters of the stripped texts.

    Letters are composed first (Unicode NFC), so that `é` is one character in both texts. Two empty
    texts have distance 0. Components: `ned`; on sets of whitespace tokens, `token_precision` (share
    of the answer's tokens in the ground truth), `token_recall` (share of the ground truth's tokens
    in the answer) and `token_f1`; `exact`. Every text can be parsed.
    """
    texts = [normalize("NFC", text.strip()) for text in answers.texts]
    targets = [normalize("NFC", (target or "").strip()) for target in answers.targets]
    ned = distances(texts, targets)
    overlap = np.array([token_overlap(a, b) for a, b in zip(texts, targets, strict=True)]).reshape(-1, 3)
    components = {
        "ned": ned,
        "token_precision": overlap[:, 0],
        "token_recall": overlap[:, 1],
        "token_f1": overlap[:, 2],
        "exact": np.array([a == b for a, b in zip(texts, targets, strict=True)], dtype=float),
    }
    return Scores(1.0 - ned, parsed_columns({"text": texts}), components, [None] * len(texts))


def distances(texts: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """Levenshtein distance / longer length, (n,) float64; 0 for two empty texts."""
    if not texts:
        return np.zeros(0)
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    return np.asarray(cpdist(texts, targets, scorer=Levenshtein.normalized_distance, dtype=np.float64))


def token_overlap(text: str, target: str) -> tuple[float, float, float]:
    """Token set (precision, recall, F1) of `text` against `target`; all 1 if both are empty."""
    answered, true = set(text.split()), set(target.split())
    if not answered and not true:
        return 1.0, 1.0, 1.0
    shared = len(answered & true)
    precision = shared / len(answered) if answered else 0.0
    recall = shared / len(true) if true else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if shared else 0.0


NED = {
    "ned": RewardMetric(mean("ned"), "edit distance (NED)", percent=False, lower_is_better=True, component="ned"),
}
TOKEN_METRICS = {
    "token_f1": RewardMetric(mean("token_f1"), "token F1"),
    "token_precision": RewardMetric(mean("token_precision"), "token precision"),
    "token_recall": RewardMetric(mean("token_recall"), "token recall"),
}

REWARD = Reward(
    name="edit_distance",
    summary="1 - normalised edit distance between the answer and the ground truth",
    score=edit_distance,
    components=("ned", "token_precision", "token_recall", "token_f1", "exact"),
    metrics={**NED, **TOKEN_METRICS, "exact": RewardMetric(mean("exact"), "exact")},
    needs="answer",
)
