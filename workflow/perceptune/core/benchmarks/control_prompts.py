"""Other ways of asking a question, as controls: a gain that another prompt brings, too, is one of format."""

from __future__ import annotations

FORMATS = {
    "grounding": "Answer only with the bounding box as [x1, y1, x2, y2].",
    "ocr": "Answer only with the text, exactly as it is written.",
    "existence": "Answer only yes or no.",
    "counting": "Answer only with a number.",
    "open": "Answer the question using a single word or phrase.",
}
"""Task to words that ask for the format of its answers; what is open has none of its own, and is asked to be short."""

CONDITION = "prompt-"


def asked_as(prompt: str, question: str, task: str) -> str:
    """The user's turn: `{question}` and `{format}` of a prompt filled in."""
    return prompt.replace("{format}", FORMATS[task]).replace("{question}", question)


def condition_of(number: int) -> str:
    """What requests and answers to the other prompt of that number, from 1, are marked with."""
    return f"{CONDITION}{number}"


def number_of(condition: str) -> int | None:
    """The inverse of `condition_of`; None for another condition."""
    number = condition.removeprefix(CONDITION)
    return int(number) if number != condition else None
