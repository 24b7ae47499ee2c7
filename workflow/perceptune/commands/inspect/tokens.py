"""The tokens of an answer with their log-probs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from perceptune.report.gallery import visible

SHADES = (-0.1, -0.7, -2.0, -5.0)
"""Log-probs that separate the five shades in which tokens are shown: probabilities of about 90, 50, 14
and 0.7 %."""


@dataclass(frozen=True)
class Token:
    """One token of an answer."""

    text: str
    logprob: float
    shade: int
    """From 0, nearly certain, to 4."""


@dataclass(frozen=True)
class Tokens:
    """All tokens of an answer, including its end-of-sequence token."""

    tokens: tuple[Token, ...]
    total: float
    """Log-prob of the answer."""
    mean: float
    """Per token."""


def tokens_of(response: Mapping[str, Any] | None, model: Mapping[str, Any]) -> Tokens | None:
    """The tokens of a row of `responses`; None without log-probs.

    `model` is the model block of the policy. If its tokenizer is not there any more, tokens are shown by
    their ids.
    """
    if response is None or not response["logprobs"] or len(response["logprobs"]) != len(response["token_ids"]):
        return None
    tokenizer, values = _tokenizer(str(model.get("path", ""))), response["logprobs"]
    texts = [str(token) if tokenizer is None else tokenizer.decode([token], False) for token in response["token_ids"]]
    found = tuple(
        Token(visible(text, 80) or " ", value, sum(value < limit for limit in SHADES))
        for text, value in zip(texts, values, strict=True)
    )
    return Tokens(found, math.fsum(values), math.fsum(values) / len(values))


@lru_cache(4)
def _tokenizer(folder: str) -> Tokenizer | None:
    file = Path(folder) / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file)) if file.is_file() else None
    except Exception:  # the library raises nothing more specific for a damaged file
        return None
