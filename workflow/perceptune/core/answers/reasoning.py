"""The answer of a response that begins with the model's reasoning."""

from __future__ import annotations

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
TAGS = ("<answer>", "</answer>")
UNFINISHED = "reasoning never ends"
"""Why a response whose reasoning is not closed has no answer."""


@dataclass(frozen=True)
class Reasoning:
    """How a model writes its reasoning."""

    markers: Markers = COMMON
    opened: bool = False
    """Whether the prompt ends with the opening marker, so that responses begin inside the reasoning."""

    @property
    def signs(self) -> tuple[str, ...]:
        """`answer` returns a response that contains none of these as it is, unless `opened`."""
        return (*self.markers, TAGS[0])

    def answer(self, response: str) -> str | None:
        """The response without its reasoning; None if the reasoning never ends.

        This is the text after the last closing marker, stripped, whether or not the reasoning was
        opened. A response without markers is returned unchanged, except after a prompt that opened
        the reasoning: then it never ends. If the answer is in `<answer>` tags, as R1-style models
        write it, it is what the last tags contain.
        """
        opening, closing = self.markers
        _, closed, answer = response.rpartition(closing)
        if opening in answer or (self.opened and not closed):
            return None
        return _in_tags(answer.strip() if closed else response)


def _in_tags(answer: str) -> str:
    """The content of the last `<answer>` tags; the answer itself if it has none."""
    _, opened, rest = answer.rpartition(TAGS[0])
    content, closed, _ = rest.partition(TAGS[1])
    return content.strip() if opened and closed else answer


def markers_in(template: str) -> Markers | None:
    """The first of the `KNOWN` markers that a chat template mentions; None if it mentions none."""
    return next((pair for pair in KNOWN if any(marker in template for marker in pair)), None)
