"""The answer of a response that begins with the model's reasoning."""

from __future__ import annotations

import re
from dataclasses import dataclass

Markers = tuple[str, str]
"""The texts that open and close the reasoning."""

COMMON: Markers = ("<think>", "</think>")
KNOWN: tuple[Markers, ...] = (
    COMMON,
    ("<thinking>", "</thinking>"),
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("[THINK]", "[/THINK]"),  # Mistral
)
"""The markers of published models."""
TAGGED = re.compile(r"\s*<answer>((?:(?!</?answer>).)*)</answer>\s*", re.DOTALL)
"""An answer that is nothing but one tag; its text may have several lines."""
UNFINISHED = "reasoning never ends"
"""Why a response whose reasoning is not closed has no answer."""


@dataclass(frozen=True)
class Reasoning:
    """How a model writes its reasoning."""

    markers: Markers = COMMON
    opened: bool = False
    """Whether the prompt ends with the opening marker, so that responses begin inside the reasoning."""

    def answer(self, response: str) -> str | None:
        """The response without its reasoning; None if the reasoning never ends.

        This is the text after the last closing marker, stripped, whether or not the reasoning was
        opened. If all of it is in one `<answer>` tag, as in DeepSeek-R1's format, this is the text in
        the tag. A response without markers is returned unchanged, except after a prompt that opened
        the reasoning: then it never ends.
        """
        opening, closing = self.markers
        _, closed, answer = response.rpartition(closing)
        if opening in answer or (self.opened and not closed):
            return None
        if tagged := TAGGED.fullmatch(answer):
            return tagged[1].strip()
        return answer.strip() if closed else response


def markers_in(template: str) -> Markers | None:
    """The first of the `KNOWN` markers that a chat template mentions; None if it mentions none."""
    return next((pair for pair in KNOWN if any(marker in template for marker in pair)), None)
