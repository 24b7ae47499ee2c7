"""Correctness on yes/no questions (POPE)."""

from __future__ import annotations

import re

import numpy as np

from perceptune.core.rewards.metrics import Columns, mean, ratio
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores, parsed_columns

NO = {"no", "not"}
UNSURE = re.compile(
    r"\b(?:not (?:\w+ )?(?:sure|certain|clear|known|visible enough)|(?:can|ca|could) ?not (?:\w+ )?(?:tell|say|determine|know))\b"
)
LIST_NUMBER = re.compile(r"^\W*\d+[.)]\s+")
CLAUSE_END = re.compile(r"[!?\n\r！？。]+")


def yes_no(answers: Answers) -> Scores:
    """Reward: 1 if the parsed answer equals the ground truth.

    Components: `predicted_yes` and `target_yes` (0 or 1; an unparsable answer is not a yes),
    `correct`.
    """
    parsed = [parse_yes_no(text) for text in answers.texts]
    true = [parse_yes_no(target or "") for target in answers.targets]
    right = np.array([p is not None and p == t for p, t in zip(parsed, true, strict=True)], dtype=float)
    components = {
        "predicted_yes": np.array([p == "yes" for p in parsed], dtype=float),
        "target_yes": np.array([t == "yes" for t in true], dtype=float),
        "correct": right,
    }
    reasons = [None if p else "neither yes nor no" for p in parsed]
    return Scores(right, parsed_columns({"answer": parsed}, [p is not None for p in parsed]), components, reasons)


def parse_yes_no(text: str) -> str | None:
    """`yes`, `no` or None, from the words of the first sentence.

    As in POPE's official rule, a sentence with "no" or "not" means no. Unlike there, another
    sentence means yes only if it contains "yes", so that rambling does not count as yes; lines, `!`
    and `?` end a clause, of which the first that says either counts; "not sure" and the like are
    neither; and a list number is no sentence.
    """
    sentence = LIST_NUMBER.sub("", text.strip().lower().replace("’", "'")).split(".")[0].replace("n't", " not")
    for clause in CLAUSE_END.split(sentence):
        words = set(re.findall(r"[a-z]+", UNSURE.sub(" ", clause)))
        if words & NO:
            return "no"
        if "yes" in words:
            return "yes"
    return None


def _precision(columns: Columns) -> np.ndarray:
    hits = (columns["predicted_yes"] * columns["target_yes"]).sum(axis=-1)
    return ratio(hits, columns["predicted_yes"].sum(axis=-1))


def _recall(columns: Columns) -> np.ndarray:
    hits = (columns["predicted_yes"] * columns["target_yes"]).sum(axis=-1)
    return ratio(hits, columns["target_yes"].sum(axis=-1))


def _f1(columns: Columns) -> np.ndarray:
    hits = (columns["predicted_yes"] * columns["target_yes"]).sum(axis=-1)
    return ratio(2 * hits, (columns["predicted_yes"] + columns["target_yes"]).sum(axis=-1))


COMPONENTS = ("predicted_yes", "target_yes", "correct")
METRICS = {
    "f1": RewardMetric(_f1, "F1 of yes"),
    "accuracy": RewardMetric(mean("correct"), "accuracy", component="correct"),
    "precision": RewardMetric(_precision, "precision of yes"),
    "recall": RewardMetric(_recall, "recall of yes"),
    "yes_ratio": RewardMetric(mean("predicted_yes"), "answers yes"),
}

REWARD = Reward(
    name="yes_no",
    summary="1 if the first sentence of the answer gives the correct yes or no",
    score=yes_no,
    components=COMPONENTS,
    metrics=METRICS,
    needs="answer",
)
