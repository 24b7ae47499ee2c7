"""Exact match after normalisation."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

import numpy as np

from perceptune.core.rewards.metrics import mean
from perceptune.core.rewards.reward import Answers, Reward, RewardMetric, Scores, parsed_columns

NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?")
"""A number; larger exponents are text."""


def exact_match(answers: Answers) -> Scores:
    """Reward: 1 if answer and ground truth are equal.

    Numbers are compared by value, other text ignoring case, surrounding whitespace and a final full
    stop. Component: `correct`. An empty answer cannot be parsed.
    """
    texts = [normalised(text) for text in answers.texts]
    targets = [normalised(target or "") for target in answers.targets]
    right = np.array([a == b and a != "" for a, b in zip(texts, targets, strict=True)], dtype=float)
    parsed = parsed_columns({"answer": texts}, [t != "" for t in texts])
    return Scores(right, parsed, {"correct": right}, [None if t else "the answer is empty" for t in texts])


def normalised(text: str) -> str:
    """Normalised text: `" 3.0. "` and `"3"` become `"3"`, `"The  Cat."` becomes `"the cat"`.

    Composed and decomposed letters (`é`) are the same. Numbers are exact, of any length, and commas
    may only separate thousands: `"1,000"` becomes `"1000"`, `"1,5"` stays.
    """
    bare = " ".join(unicodedata.normalize("NFC", text).lower().split()).removesuffix(".").strip()
    if NUMBER.fullmatch(bare) is None:
        return bare
    number = f"{Decimal(bare.replace(',', '')):f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


REWARD = Reward(
    name="exact_match",
    summary="1 if answer and ground truth are equal after normalisation",
    score=exact_match,
    components=("correct",),
    metrics={"accuracy": RewardMetric(mean("correct"), "accuracy", component="correct")},
    needs="answer",
)
