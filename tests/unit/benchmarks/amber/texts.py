"""Answers and descriptions that are drawn for AMBER's questions."""

from random import Random

from tests.unit.benchmarks.answering import Row

SAID = ("Yes", "No", " No\n", "yes", "no", "Yes, it is.", "No.", "NO", "Not sure", "", "It does.")
STRANGE = ("unicorn", "Dog", "teapot")
"""Nouns that are not in AMBER's vocabulary."""


def alike(one: str, other: str) -> bool:
    """Stand-in for word vectors: equal words, or long words with the same first four letters."""
    return one == other or (min(len(one), len(other)) > 4 and one[:4] == other[:4])


def yes_no_rows(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == "existence"]


def described(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == "open"]


def drawn_nouns(rows: list[Row], seed: int) -> list[str]:
    """Nouns from the truth, the expected hallucinations, the rest of the vocabulary, and outside
    it.
    """
    draw = Random(seed)
    found = []
    for row in rows:
        related = [word for words in row["association"].values() for word in words] or row["truth"]
        pools = (row["truth"], row["hallu"], related, row["vocabulary"], row["safe_words"], STRANGE)
        found.append(" ".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(0, 12))))
    return found
