"""Alternative prompts as controls: a gain that the base model also gets from another prompt is a
gain in answer format, not in perception.
"""

from __future__ import annotations

FORMATS = {
    "grounding": "Answer only with the bounding box as [x1, y1, x2, y2].",
    "ocr": "Answer only with the text, exactly as it is written.",
    "existence": "Answer only yes or no.",
    "counting": "Answer only with a number.",
    "open": "Answer the question using a single word or phrase.",
}
"""Maps a task to an instruction for its answer format. Open questions have no format of their own;
the instruction asks for short answers.
"""

CONDITION = "prompt-"


def asked_as(prompt: str, question: str, task: str) -> str:
    """The user turn: the prompt with `{question}` and `{format}` filled in."""
    return prompt.replace("{format}", FORMATS[task]).replace("{question}", question)


def condition_of(number: int) -> str:
    """The condition that marks requests and answers of alternative prompt `number`, from 1."""
    return f"{CONDITION}{number}"


def number_of(condition: str) -> int | None:
    """The inverse of `condition_of`; None for any other condition."""
    number = condition.removeprefix(CONDITION)
    return int(number) if number != condition else None
