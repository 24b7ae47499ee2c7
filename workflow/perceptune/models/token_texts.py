"""The text of each token of a response."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\ufffd"
"""What decoders write for bytes that are not a whole character."""


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it; joined, they are the decoded response.

    A character made of several tokens belongs to the last of them. Each token is decoded together
    with those before it, because tokenizers decode a leading space only within a text.
    """

    def decoded(start: int, end: int) -> str:
        text = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    texts, start, read = [], 0, 0
    for end in range(1, len(ids) + 1):
        before, after = decoded(start, read), decoded(start, end)
        if after.endswith(INCOMPLETE) and end < len(ids):
            texts.append("")
            continue
        texts.append(after[len(before) :])
        start, read = read, end
    return texts
